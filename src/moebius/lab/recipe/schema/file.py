"""The keys of a recipe's file."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import AtLeastOne, Strict, place_of
from moebius.lab.data.scale import ScaleKind
from moebius.lab.recipe.schema.published import PublishedSpec
from moebius.lab.recipe.schema.report import ReportSpec
from moebius.lab.recipe.schema.sweep import SweepSpec
from moebius.lab.training.settings import Settings

LARGEST_SIZE = 4096
"""Largest height and width of images, in pixels."""
MOST_SEEDS = 10_000
"""Most runs of each variant."""
FILE_NAME = r"^\w[\w+-]*$"


def _check_file_name(name: str) -> str:
    if not re.fullmatch(FILE_NAME, name):
        raise ValueError("needs letters, digits, _, + and - alone, for it names a folder")
    return name


FileName = Annotated[str, AfterValidator(_check_file_name), WithJsonSchema({"type": "string", "pattern": FILE_NAME})]
Changes = Annotated[dict[str, Any], place_of("Settings-change")]
Network = Annotated[dict[str, Any], place_of("network-change")]


class DataSpec(Strict):
    """The images, or the table, and how they are read: the arguments of `moebius.lab.data.load_sets`, and `split`.

    Arguments:
        sets: the data sets, at least one; each is a domain, and their classes are counted one after another. A table
            stands alone.
        size: height and width that images are scaled to, in pixels, 1 to 4096.
        color: grey or rgb, of images.
        scale: the numbers that models get for pixels 0 … 255: unit (0 … 1), raw (0 … 255), signed (−1 … 1), or
            standardised, by mean and deviation of each channel over the training rows. A variant may have another.
        classes: names or numbers of the classes to keep; null for all.
        train_rows: number of training rows to keep, at least 1; null for all.
        test_rows: number of test rows to keep, at least 1; null for all.
        validation_rows: number of training rows that are held out and never trained on, at least 0.
        validation: share of the training rows that is held out, between 0 and 1, in the place of validation_rows.
        split: whether all seeds hold out, and draw for training, the same rows (fixed), or each seed others (by_seed);
            seed 0 has the rows of fixed, and the test rows are the same for all.
    """

    sets: list[Annotated[dict[str, Any], place_of("source")]] = Field(min_length=1)
    size: Annotated[int, Field(ge=1, le=LARGEST_SIZE)] = 32
    color: Literal["grey", "rgb"] = "grey"
    scale: ScaleKind = "unit"
    classes: list[Any] | None = Field(default=None, min_length=1)
    train_rows: AtLeastOne | None = None
    test_rows: AtLeastOne | None = None
    validation_rows: int = Field(default=0, ge=0)
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    split: Literal["fixed", "by_seed"] = "fixed"

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """Rows are held out by their number or by their share."""
        if values.get("validation") is not None and values.get("validation_rows"):
            rule = "cannot stand beside validation_rows, because both say how many rows are held out"
            fix = "remove validation_rows, or remove validation"
            return [Problem(("validation",), rule, values["validation"], fix)]
        return []


class DataChange(Strict):
    """What a variant changes of the data: their scale alone, for all variants see the same rows.

    Arguments:
        scale: as in `data`.
    """

    scale: ScaleKind


class PretrainingSpec(Strict):
    """What stages share, as `model` and `training` are what variants share.

    Arguments:
        network: the network of every stage; a stage's own `network` is laid over it.
        training: laid over the recipe's `training`; a stage's own `training` is laid over both.
    """

    network: Network = Field(default={})
    training: Changes = Field(default={})


class StageFile(Strict):
    """One stage: a network or a mixture that is trained before the models that use it, and its rows.

    Arguments:
        network: an expert's spec, laid over pretraining.network.
        model: a mixture's spec, in place of a network; null for a network.
        classes: names or numbers of the classes whose rows it is trained on; null for all.
        groups: classes that count as one, at least two groups, in place of classes; null for none.
        domains: names or numbers of the data sets whose rows it is trained on; null for all.
        train_rows: number of training rows, at least 1; null for all.
        outputs: whether the network has an output for all classes, for its own only, or for its own and one more that
            says "none of mine" (own+other), for which it is trained on rows of other classes, too.
        rows: the rows that it is trained on: train; those that are held out, but for a fifth of them (held_out); or
            {cross_fit: K}: train, where the stages that it uses were trained without each row's fold, of K.
        others: with own+other, how many rows of other classes there are for a row of its own: a number above 0, or all.
        training: laid over pretraining.training.
    """

    network: Network = Field(default={})
    model: Annotated[dict[str, Any] | None, place_of("mixture-or-null")] = None
    classes: list[Any] | None = Field(default=None, min_length=1)
    groups: list[list[Any]] | None = Field(default=None, min_length=2)
    domains: list[Any] | None = Field(default=None, min_length=1)
    train_rows: AtLeastOne | None = None
    outputs: Literal["all", "own", "own+other"] = "all"
    others: Annotated[float, Field(gt=0)] | Literal["all"] = 1.0
    rows: Annotated[Any, place_of("rows")] = "train"
    training: Changes = Field(default={})


class RecipeFile(Strict):
    """One YAML file: data, training and the models to compare.

    Arguments:
        name: of the study and its folder: letters, digits, _, + and -.
        title: the question that the study asks; the heading of the report.
        description: what is compared, in a few sentences.
        time: how long the study takes, as its author measured.
        data: the images, or the table, and how they are read.
        task: what is learned: a kind of room tasks with its keywords, or the kind alone.
        training: how every variant is trained.
        pretraining: what the stages share.
        stages: by name, networks that are trained before the variants; each may use those above it.
        model: what the variants share: gate, router, experts, combine and execution; or layers.
        variants: by name, what each model of the comparison changes in `model`, in `training` and in `data.scale`; and
            `rows: held_out` or `rows: {cross_fit: 5}`, for what is trained on frozen experts. At least one.
        baseline: name of the variant that the others are compared with; null for the first.
        margin: within which a difference of the score does not matter, above 0, so that variants may be shown to be
            level; null for none.
        seeds: number of runs of each variant, with the seeds 0 … seeds − 1; 1 to 10000.
        sweep: values that are tried for keys of the models and their training; null for none.
        report: what the report draws.
        published: figures of a published study, for the report; null for none.
        presets: by name, values that `--preset NAME` sets: dotted keys such as training.epochs or data.sets[0].name.
    """

    name: FileName
    title: str = ""
    description: str = ""
    time: str = ""
    data: DataSpec
    task: Annotated[dict[str, Any] | str, place_of("task")] = "classification"
    training: Settings = Settings()
    pretraining: PretrainingSpec = PretrainingSpec()
    stages: dict[FileName, Annotated[dict[str, Any], place_of("StageFile")]] = Field(default={})
    model: Annotated[dict[str, Any], place_of("model")] = Field(default={})
    variants: dict[FileName, Annotated[dict[str, Any], place_of("variant")]] = Field(min_length=1)
    baseline: str | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 1
    sweep: SweepSpec | None = None
    report: ReportSpec = ReportSpec()
    published: PublishedSpec | None = None
    presets: dict[str, Annotated[dict[str, Any], place_of("preset")]] = Field(default={})
