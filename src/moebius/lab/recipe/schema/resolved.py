"""A recipe after validation: stages and variants with everything filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moebius.lab.recipe.schema.file import DataSpec, RecipeFile
from moebius.lab.recipe.schema.report import ReportSpec
from moebius.lab.recipe.schema.training import TrainingSpec


@dataclass(frozen=True)
class Stage:
    """A part that is trained before the models that use it, with everything that stages share filled in.

    Arguments:
        name: how models call it: `{kind: stage, stage: NAME}`.
        model: of the mixture that is trained; for a network, one of a single expert.
        part: path of what is handed on inside the trained mixture; "" for all of it.
        rows: what `moebius.lab.data.select_rows.select_rows` takes, but for the data.
        training: how it is trained.
    """

    name: str
    model: Mapping[str, Any]
    part: str
    rows: Mapping[str, Any]
    training: TrainingSpec


@dataclass(frozen=True)
class Variant:
    """One model of a study, with everything that it shares with the others filled in.

    Arguments:
        name: its name, also that of its folder.
        model: gate, router, experts, combine, execution: what `moebius.lab.model.build.build_mixture` takes.
        training: how it is trained.
    """

    name: str
    model: Mapping[str, Any]
    training: TrainingSpec


@dataclass(frozen=True)
class Recipe:
    """A validated recipe, its preset and overrides applied.

    Arguments:
        source: the file it came from, as errors name it.
        reference: the shipped name or the path that it was loaded by.
        file: the values of all keys, defaults filled in.
        variants: the models to compare, in the recipe's order.
        stages: what is trained first, each after those that it uses.
        preset: the preset that was applied.
        overrides: the `key=value`s that were applied.
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
        """What is compared, in a few sentences."""
        return self.file.description

    @property
    def time(self) -> str:
        """How long it takes, as its author measured."""
        return self.file.time

    @property
    def data(self) -> DataSpec:
        """The data of all variants."""
        return self.file.data

    @property
    def training(self) -> TrainingSpec:
        """The training that variants share; what a variant changes is in its own."""
        return self.file.training

    @property
    def seeds(self) -> int:
        """How many seeds each variant is run with: 0 … seeds − 1."""
        return self.file.seeds

    @property
    def report(self) -> ReportSpec:
        """What the report draws."""
        return self.file.report

    def resolved_variants(self) -> dict[str, Variant]:
        """Variants by name, in the recipe's order."""
        return {variant.name: variant for variant in self.variants}

    def resolved(self) -> dict[str, Any]:
        """Plain values of all keys: written as YAML it is a recipe again, which needs no preset and no overrides."""
        return self.file.model_dump(mode="json")
