"""What a run's model says of its data: the key `data` of the header of `model.safetensors`."""

from typing import Any, Literal

from moebius.lab.documents.form import Form


class TaskValues(Form):
    """Kind and keywords of a task."""

    kind: str


class ScaleValues(Form):
    """The scale of the pixels."""

    kind: str
    mean: list[float] | None = None
    deviation: list[float] | None = None


class ModelData(Form):
    """The data that a run's model was trained on."""

    task: TaskValues
    classes: list[str]
    domains: list[str]
    facts: dict[str, Any]
    precision: Literal["fp32", "bf16"]
    scale: ScaleValues | None = None
    columns: dict[str, Any] | None = None
