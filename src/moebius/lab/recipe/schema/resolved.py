"""A recipe after validation: stages and variants with everything filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moebius.lab.data.held_out_rows import TrainedRows
from moebius.lab.recipe.schema.file import DataSpec, RecipeFile
from moebius.lab.recipe.schema.report import ReportSpec
from moebius.lab.recipe.schema.sweep import SweepSpec
from moebius.lab.training.settings import Settings


@dataclass(frozen=True)
class Stage:
    """A network or mixture that is trained before the models that use it, with what stages share filled in.

    Arguments:
        name: its name in models: `{kind: stage, stage: NAME}`.
        model: spec of the mixture that is trained; for a network, a mixture with this network as its only expert.
        part: module path, inside the trained mixture, of the module that models use; "" for the whole mixture.
        rows: the arguments of `moebius.lab.data.select_rows.select_rows` but the data.
        training: how the mixture is trained.
    """

    name: str
    model: Mapping[str, Any]
    part: str
    rows: Mapping[str, Any]
    training: Settings


@dataclass(frozen=True)
class Point:
    """A combination of values of swept keys, for a variant.

    Arguments:
        variant: name of the variant in the recipe.
        values: swept key → value, in the order of the recipe.
    """

    variant: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A model of a study, with what variants share filled in.

    Arguments:
        name: name of the variant and of its folder.
        model: its model part: gate, router, experts, combine and execution, or layers.
        training: how the model is trained.
        scale: of the pixels that the model gets.
        point: of a sweep, where it is one; its name then tells the values.
        rows: that it is trained on: "train", or "held_out".
    """

    name: str
    model: Mapping[str, Any]
    training: Settings
    scale: str = "unit"
    point: Point | None = None
    rows: TrainedRows = "train"


@dataclass(frozen=True)
class Recipe:
    """A validated recipe, with preset and overrides applied.

    Arguments:
        source: name of its file in errors.
        reference: the shipped name or the path that `load_recipe` received; for a mapping, a file of its name.
        file: the values of all keys, with defaults filled in.
        variants: the models to compare, in the recipe's order; the points of a sweep in place of a swept variant.
        stages: the stages, each after those that it uses.
        preset: name of the applied preset, or None.
        overrides: the applied `key=value` texts.
    """

    source: str
    reference: str
    file: RecipeFile
    variants: tuple[Variant, ...]
    stages: tuple[Stage, ...] = ()
    preset: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.file.name

    @property
    def title(self) -> str:
        """The question that the study asks."""
        return self.file.title or self.file.name

    @property
    def description(self) -> str:
        """A few sentences on what the study compares."""
        return self.file.description

    @property
    def time(self) -> str:
        """The time that the study takes, as its author measured."""
        return self.file.time

    @property
    def data(self) -> DataSpec:
        """The data of all variants."""
        return self.file.data

    @property
    def task(self) -> dict[str, Any]:
        """What is learned: the kind and keywords of a task."""
        return {"kind": self.file.task} if isinstance(self.file.task, str) else self.file.task

    @property
    def training(self) -> Settings:
        """The training that variants share; `Variant.training` has the changes of a variant."""
        return self.file.training

    @property
    def seeds(self) -> int:
        """Number of runs of each variant, with the seeds 0 … seeds − 1."""
        return self.file.seeds

    @property
    def sweep(self) -> SweepSpec | None:
        """The values that are tried for keys; None for none."""
        return self.file.sweep

    @property
    def report(self) -> ReportSpec:
        """The figures and sections that the report adds."""
        return self.file.report

    def resolved_variants(self) -> dict[str, Variant]:
        """Variants by name, in the recipe's order."""
        return {variant.name: variant for variant in self.variants}

    def resolved(self) -> dict[str, Any]:
        """Plain values of all keys: written as YAML it is a recipe again, which needs no preset and no overrides."""
        return self.file.model_dump(mode="json")
