"""The file `result.json` of a run or a stage, an entry of `results.json`."""

from typing import Any

from pydantic import Field

from moebius.lab.documents.form import Count, Figures, FolderName, Form, Name, Width


class GateEntry(Form):
    """A gate of a run."""

    experts: Width = Field(ge=1)
    learned: bool = True
    active_experts: Figures | None = None


class ExpertEntry(Form):
    """An expert by itself; the further keys are its scores."""

    __pydantic_extra__: dict[str, float | None] = Field(init=False)  # pyright: ignore

    paths: list[str] = Field(min_length=1)
    name: Name | None = None
    classes: list[Name] | None = None
    frozen: bool = False
    confidence: Figures | None = None
    by_class: list[float | None] | None = None
    by_domain: list[float | None] | None = None


class SplitEntry(Form):
    """Figures of a split at an epoch; the further keys are scores, and the scores of domains."""

    __pydantic_extra__: dict[str, float | Figures | None] = Field(init=False)  # pyright: ignore

    loss: float | None = None
    terms: Figures | None = None


class GateEpoch(Form):
    """Figures of a gate at an epoch."""

    rows: Count | None = None
    entropy: float | None = None
    marginal_entropy: float | None = None
    load: list[float | None] | None = None
    importance: list[float | None] | None = None


class EpochEntry(Form):
    """A line of `metrics.jsonl`."""

    epoch: Count
    train: SplitEntry | None = None
    test: SplitEntry | None = None
    validation: SplitEntry | None = None
    gates: dict[str, GateEpoch] | None = None
    findings: dict[str, str] | None = None


class RunEntry(Form):
    """A variant at a seed, or a stage; the further keys are scores: of splits, of domains, and of one expert.

    docs/results-schema.md describes the keys.
    """

    __pydantic_extra__: dict[str, float | dict[str, float | Figures | None] | None] = Field(init=False)  # pyright: ignore

    variant: FolderName | None = None
    stage: FolderName | None = None
    seed: Count
    epoch: Count | None = None
    loss: Figures | None = None
    metrics: dict[str, Figures] | None = None
    epochs: list[EpochEntry] | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    parameters: Count | None = None
    one_expert: SplitEntry | None = None
    experts_alone: list[ExpertEntry] | None = None
    oracle: float | None = None
    cached: bool | None = None
    trained: bool = True
    gates: dict[Name, GateEntry] | None = None
    findings: list[dict[str, Any]] | None = None
    precision: str | None = None
    versions: list[dict[str, str]] | None = None
    # Of a stage.
    classes: list[Name] | None = None
    groups: list[list[Name]] | None = None
    fold: list[Count] | None = None
    rows: dict[str, Count] | None = None
