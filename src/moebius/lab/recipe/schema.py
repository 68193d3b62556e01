"""The keys of a recipe, their types and defaults. What components take is read from their signatures (`check.py`)."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# What a study writes beside its variants' folders.
RESERVED = ("figures", "tables", "stages")


class Strict(BaseModel):
    """A mapping with known keys and no conversions: 2 is a number, "2" is text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Keywords(Strict):
    """A mapping that also takes keywords of what it names."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keys that the schema does not know: keywords of the class or function that `kind` names."""
        return copy.deepcopy(self.model_extra or {})


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w+-]*", name):
        raise ValueError("needs letters, digits, _, + and - alone, for it names a folder")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
AtLeastOne = Annotated[int, Field(ge=1)]


class DataSpec(Strict):
    """What `moebius.lab.data.load_sets` is given."""

    sets: list[dict[str, Any]] = Field(min_length=1)
    size: AtLeastOne = 32
    color: Literal["grey", "rgb"] = "grey"
    classes: list[Any] | None = Field(default=None, min_length=1)
    train_rows: AtLeastOne | None = None
    test_rows: AtLeastOne | None = None
    validation_rows: int = Field(default=0, ge=0)


class OptimizerSpec(Keywords):
    """An optimizer of torch; `keywords` go to its class."""

    kind: str = "adam"
    lr: Any = 1e-3


class GroupSpec(Strict):
    """What the gate's or the experts' parameters have apart: null means as the optimizer says."""

    lr: Any = None
    freeze: bool = False
    start_epoch: float = Field(default=0.0, ge=0)
    period: AtLeastOne = 1
    phase: int = Field(default=0, ge=0)


class LossSpec(Keywords):
    """A gate loss: a function of room `losses`, its weight (number or schedule) and its keywords."""

    kind: str
    weight: Any = 1.0


class PlateauSpec(Strict):
    """How learning rates fall where held-out rows see no progress."""

    patience: AtLeastOne
    factor: float = Field(default=0.5, gt=0, lt=1)
    least: float = Field(default=0.0, ge=0)


class WatchSpec(Strict):
    """What held-out rows decide at the end of each epoch."""

    measure: Literal["accuracy", "loss"] = "accuracy"
    patience: AtLeastOne | None = None
    plateau: PlateauSpec | None = None
    above: float | None = None
    restart: bool = False


class L2Spec(Strict):
    """A penalty on the squares of kernels in the loss."""

    weight: float = Field(ge=0)
    layers: Literal["all", "convolutions"] = "all"


class TrainingSpec(Strict):
    """How every variant is trained, unless it says otherwise."""

    epochs: AtLeastOne = 20
    batch_size: AtLeastOne = 128
    optimizer: OptimizerSpec = OptimizerSpec()
    gate: GroupSpec = GroupSpec()
    experts: GroupSpec = GroupSpec()
    losses: list[LossSpec] = []
    cross_entropy: Any = 1.0
    router: dict[str, Any] = {}
    clip_norm: float | None = Field(default=None, gt=0)
    l2: L2Spec | None = None
    watch: WatchSpec | None = None
    augment: list[dict[str, Any]] = []
    views: AtLeastOne | None = None
    remember: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_seconds: float = Field(default=30.0, gt=0)


class CurvesSpec(Strict):
    """One figure of accuracy by epoch, and its zoomed view."""

    title: str
    variants: list[str] = Field(min_length=1)


class SweepSpec(Strict):
    """A figure of accuracy against a number; `marks` are variants drawn as horizontal rules."""

    x: Literal["experts"] = "experts"
    variants: list[str] = Field(min_length=1)
    marks: list[str] = []


class OneExpertSpec(Strict):
    """A section on what is lost and saved when exactly one expert runs; times are measured after the last run.

    `floor` is the variant that any mixture has to beat, `bound` the one that runs all of its experts.
    """

    floor: str
    bound: str


class ReportSpec(Strict):
    """What the report draws: without curves, one figure with all variants."""

    curves: list[CurvesSpec] = []
    sweep: SweepSpec | None = None
    one_expert: OneExpertSpec | None = None


class PretrainingSpec(Strict):
    """What stages share, as `model` and `training` are what variants share."""

    network: dict[str, Any] = {}
    training: dict[str, Any] = {}


class StageFile(Strict):
    """One stage: a network or a mixture, and the rows that it is trained on."""

    network: dict[str, Any] = {}
    model: dict[str, Any] | None = None
    classes: list[Any] | None = Field(default=None, min_length=1)
    groups: list[list[Any]] | None = Field(default=None, min_length=2)
    domains: list[Any] | None = Field(default=None, min_length=1)
    train_rows: AtLeastOne | None = None
    outputs: Literal["all", "own"] = "all"
    training: dict[str, Any] = {}


class RecipeFile(Strict):
    """The keys of a recipe's file."""

    name: FileName
    title: str = ""
    description: str = ""
    time: str = ""
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    pretraining: PretrainingSpec = PretrainingSpec()
    stages: dict[FileName, dict[str, Any]] = {}
    model: dict[str, Any] = {}
    variants: dict[FileName, dict[str, Any]] = Field(min_length=1)
    seeds: AtLeastOne = 1
    report: ReportSpec = ReportSpec()
    presets: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Stage:
    """A part that is trained before the models that use it, with everything that stages share filled in.

    Arguments:
        name: how models call it: `{kind: stage, stage: NAME}`.
        model: of the mixture that is trained; for a network, one of a single expert.
        part: path of what is handed on inside the trained mixture; "" for all of it.
        rows: what `moebius.lab.data.select_rows.select` is given.
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
