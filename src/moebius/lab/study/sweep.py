"""A sweep inside a study: the points that come next, and the choice among those that have run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moebius.kit.errors import TrainingError
from moebius.lab.documents import StudyFile, read_document
from moebius.lab.recipe.schema import Point, Recipe
from moebius.lab.recipe.sweep.expand import swept_keys
from moebius.lab.recipe.sweep.propose import with_points
from moebius.lab.report.numbers import with_interval
from moebius.lab.report.points import choose_points, keep_chosen, list_points
from moebius.lab.report.source import measure_words
from moebius.lab.study.plan import Plan
from moebius.lab.study.proposals import propose_points
from moebius.lab.study.run_files import collect
from moebius.lab.study.study_file import read_study
from moebius.tasks._choice import as_task


@dataclass(frozen=True)
class Choice:
    """What the held-out rows have chosen.

    Arguments:
        names: swept variant → name of its point.
        runs: entries of results.json, of the chosen points under the names of their variants, and of variants without
            a sweep.
        lines: the choice in words, a line for each variant.
    """

    names: Mapping[str, str]
    runs: Sequence[Mapping[str, Any]]
    lines: Sequence[str]


def first_points(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the points of a sweep by optuna that the folder holds, else with the first that it proposes."""
    if recipe.sweep is None or recipe.sweep.method != "optuna":
        return recipe
    points = [Point(**point) for point in ((read_study(folder / "study.json") or {}).get("points") or {}).values()]
    if not points:
        keys = swept_keys(recipe.sweep, list(recipe.file.variants))
        points = [Point(name, values) for name in keys for values in propose_points(recipe.sweep, list(keys[name]), ())]
    return with_points(recipe, points)


def next_points(recipe: Recipe, plan: Plan) -> list[Point]:
    """All points of a sweep by optuna with those that come next; empty where there are no further ones.

    Arguments:
        recipe: with the points so far, whose runs have ended.
        plan: of the study.
    """
    if recipe.sweep is None or recipe.sweep.method != "optuna":
        return []
    about = {
        "recipe": {"seeds": recipe.seeds},
        "task": {"score": as_task(recipe.task).score_name},
        "points": {
            variant.name: {"variant": variant.point.variant, "values": variant.point.values}
            for variant in recipe.variants
            if variant.point is not None
        },
    }
    points = list_points(about, collect(plan.runs))
    proposed = []
    for name, keys in swept_keys(recipe.sweep, list(recipe.file.variants)).items():
        trials = [
            (point.values, None if point.diverged or point.estimate is None else point.estimate.mean)
            for point in points
            if point.variant == name
        ]
        if len(trials) < recipe.sweep.trials:
            proposed += [Point(name, values) for values in propose_points(recipe.sweep, list(keys), trials)]
    return [*(Point(point.variant, point.values) for point in points), *proposed] if proposed else []


def choose_runs(recipe: Recipe, folder: Path, runs: Sequence[Mapping[str, Any]]) -> Choice:
    """The choice among the points of a study that has run.

    Raises:
        TrainingError: all points of a variant have diverged.
    """
    about = read_document(folder / "study.json", StudyFile)
    points = list_points(about, runs)
    chosen = choose_points(points)
    counts: dict[str, int] = {}
    for point in points:
        counts[point.variant] = counts.get(point.variant, 0) + 1
    for variant in counts:
        if variant not in chosen:
            rule = f"{variant}: a loss of each of its {counts[variant]} points was no finite number"
            raise TrainingError(rule, "smaller values of the swept keys, or training.clip_norm=1.0")
    measure = measure_words(as_task(recipe.task).score_name)
    lines = [
        f"chosen of {counts[variant]} points: {point.name}, validation {measure} {with_interval(point.estimate)}"
        for variant, point in chosen.items()
        if point.estimate is not None
    ]
    return Choice({variant: point.name for variant, point in chosen.items()}, keep_chosen(runs, points, chosen), lines)
