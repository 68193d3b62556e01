"""Reading the folder of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel

from moebius.kit.commands import beside
from moebius.kit.errors import DamagedFileError, StudyError
from moebius.kit.files import read_json
from moebius.lab.documents import ResultsFile, StudyFile, check_form
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.gate_names import outer_gates
from moebius.lab.report.points import SweptPoint, choose_points, keep_chosen, list_points
from moebius.lab.statistics.family import Family

# Of study.json and results.json.
SCHEMA = 2
# Scores whose names are no words.
MEASURES = {
    "r2": "R²",
    "d2_absolute": "D² of the absolute error",
    "d2_pinball": "D² of the pinball loss",
    "mean_iou": "mean IoU",
}


def measure_words(name: str) -> str:
    """A measure in words; one of several tasks begins with the name of its task.

    Example:
        >>> measure_words("token_accuracy"), measure_words("price_r2")
        ('token accuracy', 'price R²')
    """
    end = next((each for each in MEASURES if name == each or name.endswith(f"_{each}")), "")
    return name.removesuffix(end).replace("_", " ") + MEASURES.get(end, "")


@dataclass(frozen=True)
class Study:
    """A finished study, read from its folder.

    Arguments:
        folder: of the study.
        about: content of study.json.
        runs: the runs of results.json, ordered as the recipe orders its variants, then by seed.
        costs: of results.json: variant → `as_trained` or `one_expert` → multiply-adds and time of a row.
        stages: of results.json: the stages trained before the variants, one entry per stage and seed.
        points: of a sweep, with their scores on held-out rows.
        chosen: swept variant → its point, whose runs are `runs` under the name of the variant.
        tables: tidy frames by name, which `tables.tabulate` computes and every section reads.
        family: the comparisons with the baseline; None without tables, and where there is nothing to compare.
        row_scores: variant → the score of each test row; empty without tables, and with several seeds.
    """

    folder: Path
    about: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]
    costs: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    stages: tuple[Mapping[str, Any], ...] = ()
    points: tuple[SweptPoint, ...] = ()
    chosen: Mapping[str, SweptPoint] = field(default_factory=dict)
    tables: Mapping[str, Frame] = field(default_factory=dict)
    family: Family | None = None
    row_scores: Mapping[str, Float[np.ndarray, " T"]] = field(default_factory=dict)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe; empty where study.json has none."""
        return self.about.get("recipe") or {}

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.about.get("study") or self.recipe.get("name") or self.folder.name)

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """The variants that have runs, in order."""
        return tuple(dict.fromkeys(run["variant"] for run in self.runs))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, ascending."""
        return tuple(sorted({run["seed"] for run in self.runs}))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(str(name) for name in (self.about.get("data") or {}).get("classes") or ())

    @property
    def score(self) -> str:
        """Name of the task's score in the files, such as accuracy or r2; more is better."""
        return str((self.about.get("task") or {}).get("score") or "accuracy")

    @property
    def measure(self) -> str:
        """The score in words, such as token accuracy or R²."""
        return measure_words(self.score)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the data sets, by domain; `all` where there is only one."""
        names = tuple(str(name) for name in (self.about.get("data") or {}).get("domains") or ())
        return names if len(names) > 1 else ("all",)

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with: the recipe's `baseline`, else the first."""
        declared = self.recipe.get("baseline")
        return declared if declared in self.variants else self.variants[0]

    @property
    def margin(self) -> float | None:
        """Within which differences of the score do not matter: the recipe's `margin`; None where there is none."""
        margin = self.recipe.get("margin")
        return None if margin is None else float(margin)

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of a variant, ascending."""
        return tuple(run["seed"] for run in self.runs if run["variant"] == variant)

    def gates_of(self, variant: str) -> tuple[str, ...]:
        """The names of a variant's gates, in the order of the model."""
        return next((tuple(run["gates"]) for run in self.runs if run["variant"] == variant and run.get("gates")), ())

    def first_gate(self, variant: str) -> str | None:
        """The first of a variant's outermost gates, by which variants are compared; None for a model without gates."""
        return next(iter(outer_gates(self.gates_of(variant))), None)

    def run_folder(self, run: Mapping[str, Any]) -> Path:
        """The folder with the files of a run."""
        return self.folder / run.get("point", run["variant"]) / f"seed-{run['seed']}"

    def table(self, name: str, **where: object) -> Frame:
        """The rows of a table whose columns have these values; an empty frame where there is no such table."""
        frame = self.tables.get(name)
        if frame is None:
            return make_frame([])
        for column, value in where.items():
            frame = frame[frame[column] == value]
        return frame.reset_index(drop=True)


def read_study(folder: Path) -> Study:
    """Read study.json and results.json.

    Raises:
        StudyError: one of them is missing, has another schema or has no run.
        DamagedFileError: one of them has not the form of such a file, or they do not belong together.
    """
    about = _read_document(folder / "study.json", StudyFile)
    results = _read_document(folder / "results.json", ResultsFile)
    runs = results.get("runs") or []
    points = list_points(about, runs)
    chosen = choose_points(points)
    runs = keep_chosen(runs, points, chosen)
    if not runs:
        raise StudyError(
            f"{folder / 'results.json'}: needs at least one run, got none", f"moebius run … --out {beside(folder, '')}"
        )
    # Variants that the recipe does not name come last, in the order of their first runs.
    recipe_places = {name: place for place, name in enumerate((about.get("recipe") or {}).get("variants") or ())}
    first_runs = {run["variant"]: place for place, run in reversed(list(enumerate(runs)))}
    places = {name: (recipe_places.get(name, len(recipe_places)), first) for name, first in first_runs.items()}
    ordered = tuple(sorted(runs, key=lambda run: (*places[run["variant"]], run["seed"])))
    costs, stages = results.get("costs") or {}, tuple(results.get("stages") or ())
    study = Study(folder, about, ordered, costs, stages, tuple(points), chosen)
    _check_scores(study)
    return study


def _check_scores(study: Study) -> None:
    """Check that each expert's entry has a number for the score that study.json names."""
    for run in study.runs:
        for expert in run.get("experts_alone") or ():
            if not isinstance(expert.get(study.score), int | float):
                reason = f"an expert of {run['variant']!r}, seed {run['seed']}, has no number for {study.score!r}"
                raise DamagedFileError(study.folder / "results.json", f"{reason}, the score in study.json")


def _read_document(path: Path, form: type[BaseModel]) -> dict[str, Any]:
    if not path.is_file():
        raise StudyError(
            f"{path}: needs the folder of a study that has run, but there is no such file",
            "give the folder that `moebius run` named, or run the study first",
        )
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        schema = value.get("schema") if isinstance(value, dict) else type(value).__name__
        writer = ", which moebius 0.1 wrote" if schema == 1 else ""
        fix = f"moebius run … --out {beside(path.parent)}, or build its report with the version that wrote it"
        raise StudyError(f"{path}: needs schema {SCHEMA}, got {schema!r}{writer}", fix)
    check_form(path, value, form)
    return value
