"""The file `study.json` of a study."""

from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from moebius.lab.documents.form import Count, FolderName, Form, Name, Width

Precision = Literal["fp32", "bf16"]


class TaskNames(Form):
    """The task of a study."""

    kind: Name | None = None
    score: Name | None = None
    loss: Name | None = None


class DataNames(Form):
    """The data of a study."""

    fingerprint: str | None = None
    classes: list[Name | int] | None = None
    targets: dict[Name, list[Name | int]] | None = None
    domains: list[Name | int] | None = None
    train_rows: Count | None = None
    validation_rows: Count | None = None
    test_rows: Count | None = None


class Sharing(Form):
    """How the runs share the machine."""

    device: Literal["cpu", "cuda"]
    workers: Width = Field(ge=1)
    threads: Width = Field(ge=1)
    nproc: Width = Field(default=1, ge=1)


class PluginRecord(Form):
    """A plugin file."""

    file: str
    sha256: str


class PointRecord(Form):
    """A point of a sweep."""

    variant: FolderName
    values: dict[str, Any]


class Settled(Form):
    """Hashes of what results depend on."""

    data: str
    variants: dict[FolderName, str]
    plugins: list[str] | None = None


class RecipeKeys(Form):
    """The keys of a resolved recipe that reports read."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    data: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    stages: dict[str, dict[str, Any]] | None = None
    model: dict[str, Any] | None = None
    variants: dict[FolderName, dict[str, Any] | None] | None = None
    baseline: str | None = None
    margin: float | None = None
    seeds: Width | None = Field(default=None, ge=1)
    sweep: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    published: dict[str, Any] | None = None


class StudyFile(Form):
    """What a study is: a report reads it, and the study goes on by it."""

    study: str | None = None
    reference: str | None = None
    preset: str | None = None
    overrides: list[str] | None = None
    command: list[str] | None = None
    recipe: RecipeKeys | None = None
    task: TaskNames | None = None
    settled: Settled | None = None
    points: dict[FolderName, PointRecord] | None = None
    plugins: list[PluginRecord] | None = None
    precision: dict[str, Annotated[tuple[Precision, str], Strict(False)]] | None = None
    versions: dict[str, str] | None = None
    data: DataNames | None = None
    alone: dict[str, str] | None = None
    machine: Sharing | None = None
    hardware: dict[str, str | int | None] | None = None
    jobs: list[list[str]] | None = None
