"""The points of a sweep: their scores on held-out rows, and the choice that these make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moebius.lab.statistics.interval import Estimate, interval


@dataclass(frozen=True)
class SweptPoint:
    """A combination of values of swept keys, and how its runs did on held-out rows.

    Arguments:
        name: of the point and of its folder.
        variant: in the recipe.
        values: swept key → value.
        scores: seed → score of the held-out rows at the reported epoch.
        diverged: number of runs whose loss was no finite number; such a point is not chosen.
    """

    name: str
    variant: str
    values: Mapping[str, Any]
    scores: Mapping[int, float]
    diverged: int

    @cached_property
    def estimate(self) -> Estimate | None:
        """Of the score over seeds; None where no run is finished."""
        return interval(list(self.scores.values())) if self.scores else None


def value_words(value: Any) -> str:
    """A swept value as YAML writes it in one line.

    Example:
        >>> value_words(1e-4), value_words([8, 16]), value_words({"kind": "linear"}), value_words(None)
        ('0.0001', '[8, 16]', '{kind: linear}', 'null')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {value_words(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_words, value))}]"
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def list_points(about: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[SweptPoint]:
    """The points of a study, in the order of its plan.

    Arguments:
        about: content of study.json.
        runs: of results.json.
    """
    score = str((about.get("task") or {}).get("score") or "accuracy")
    by_name: dict[str, dict[int, float]] = {}
    for run in runs:
        value = (run.get(score) or {}).get("validation")
        if value is not None:
            by_name.setdefault(run["variant"], {})[run["seed"]] = float(value)
    seeds = (about.get("recipe") or {}).get("seeds") or len({run["seed"] for run in runs})
    return [
        SweptPoint(name, point["variant"], point["values"], scores, seeds - len(scores))
        for name, point in (about.get("points") or {}).items()
        for scores in [by_name.get(name, {})]
    ]


def choose_points(points: Sequence[SweptPoint]) -> dict[str, SweptPoint]:
    """Variant → its point with the best mean score on held-out rows, the first of equal ones; without diverged points.

    Example:
        >>> low, high = (SweptPoint(f"a@lr={lr}", "a", {"lr": lr}, {0: lr}, 0) for lr in (0.1, 0.2))
        >>> choose_points([low, high])["a"].name
        'a@lr=0.2'
    """
    chosen: dict[str, SweptPoint] = {}
    for point in points:
        if point.diverged or point.estimate is None:
            continue
        before = chosen.get(point.variant)
        if before is None or before.estimate is None or point.estimate.mean > before.estimate.mean:
            chosen[point.variant] = point
    return chosen


def keep_chosen(
    runs: Sequence[Mapping[str, Any]], points: Sequence[SweptPoint], chosen: Mapping[str, SweptPoint]
) -> list[Mapping[str, Any]]:
    """The runs of variants without a sweep, and those of the chosen points under the names of their variants.

    Returns:
        Entries of results.json; those of a chosen point also have its name, as `point`.
    """
    swept, names = {point.name for point in points}, {point.name: variant for variant, point in chosen.items()}
    return [
        run if run["variant"] not in names else {**run, "variant": names[run["variant"]], "point": run["variant"]}
        for run in runs
        if run["variant"] not in swept or run["variant"] in names
    ]
