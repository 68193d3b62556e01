"""What a run's model says of its data: the key `data` of the header of `model.safetensors`."""

from typing import Any, Literal

from pydantic import field_validator

from moebius.kit.names import find_fault
from moebius.lab.documents.form import Form, Name


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
    classes: list[Name]
    domains: list[Name]
    facts: dict[str, Any]
    precision: Literal["fp32", "bf16"]
    scale: ScaleValues | None = None
    columns: dict[str, Any] | None = None

    @field_validator("columns")
    @classmethod
    def check_columns(cls, columns: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse columns with a text that cannot be shown."""
        _check_texts(columns)
        return columns


def _check_texts(value: Any) -> None:
    """Refuse a text in lists and objects that cannot be shown.

    Raises:
        ValueError: it holds a control character or half of a character.
    """
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for part in value:
            _check_texts(part)
    elif isinstance(value, str) and value.strip():
        fault = find_fault(value)
        if fault is not None:
            raise ValueError(f"the name {value!r:.60} {fault}")
