"""Questions that several sections ask about a study: scores by seed, ranking, gates, groups of curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.figures import slug
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_names import outer_gates
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate, interval
from moebius.lab.statistics.row_interval import row_interval


def measure_by_seed(study: Study, variant: str, measure: str, split: str) -> dict[int, float]:
    """A variant's measure in results.json, by seed."""
    values: dict[int, float] = {}
    for run in study.runs:
        value = (run.get(measure) or {}).get(split)
        if run["variant"] == variant and value is not None:
            values[run["seed"]] = float(value)
    return values


def ranking(study: Study, split: str = "test") -> list[tuple[str, Estimate]]:
    """Variants with the estimate of their score, the best mean first."""
    scores = [(variant, measure_by_seed(study, variant, study.score, split)) for variant in study.variants]
    estimates = [(variant, interval(list(by_seed.values()))) for variant, by_seed in scores if by_seed]
    return sorted(estimates, key=lambda entry: -entry[1].mean)


def estimate_of(study: Study, variant: str) -> Estimate:
    """A variant's test score with its interval: over seeds, or over test rows where it has a single seed and rows."""
    scores = list(measure_by_seed(study, variant, study.score, "test").values())
    rows = study.row_scores.get(variant)
    return row_interval(rows) if len(scores) == 1 and rows is not None else interval(scores)


def figure_name(study: Study, name: str, variant: str, gate: str | None = None) -> str:
    """The file name, without suffix, of a figure about a variant or one of its gates; no two are the same."""
    taken: set[str] = set()
    slugs = dict(zip(study.variants, [slug(text, taken) for text in study.variants], strict=True))
    suffix = "" if gate is None or is_only_outer_gate(study, variant, gate) else f"-{slug(gate)}"
    return f"{name}-{slugs[variant]}{suffix}"


def is_only_outer_gate(study: Study, variant: str, gate: str) -> bool:
    """Whether the variant's name alone says which gate is meant."""
    return outer_gates(study.gates_of(variant)) == [gate]


def first_gate_by_seed(study: Study, variant: str) -> dict[int, Mapping[str, Any]]:
    """The entry of a variant's first gate in results.json, by seed."""
    gate = study.first_gate(variant)
    return {
        run["seed"]: run["gates"][gate]
        for run in study.runs
        if run["variant"] == variant and gate in (run.get("gates") or ())
    }


def at_first_gates(study: Study, frame: Frame) -> Frame:
    """The lines of a frame about the first gate of each variant."""
    return frame if frame.empty else frame[frame["gate"] == frame["variant"].map(study.first_gate)]


def gates_with(study: Study, table: str) -> list[tuple[str, str]]:
    """The (variant, gate) pairs of a table whose gate has more than one expert, in the study's order."""
    frame = study.table(table)
    if frame.empty:
        return []
    last_experts = frame.groupby(["variant", "gate"], sort=False)["expert"].max()
    pairs = [pair for pair, last in last_experts.items() if last > 0]
    return [pair for variant in study.variants for pair in pairs if isinstance(pair, tuple) and pair[0] == variant]


def curve_groups(study: Study) -> list[tuple[str, list[str]]]:
    """Title and variants of each group in the recipe's `report.curves`; without any, one group of all variants.

    Variants without runs are left out, and groups without variants.
    """
    recipe_groups: Sequence[Mapping[str, Any]] = (study.recipe.get("report") or {}).get("curves") or ()
    groups = [
        (str(group.get("title") or ""), [name for name in group.get("variants") or () if name in study.variants])
        for group in recipe_groups
    ]
    return [group for group in groups if group[1]] or [("", list(study.variants))]


def split_untrained(frame: Frame) -> tuple[Frame, Frame]:
    """The lines of variants that were trained, and those of variants that were not, whose only epoch is 0."""
    trained = frame.groupby("variant")["epoch"].transform("max") > 0
    return frame[trained], frame[~trained]


def over_seeds(frame: Frame, by: list[str], value: str = "value") -> Frame:
    """Mean, smallest and largest value over seeds (columns mean, low, high, count) for each combination of `by`."""
    grouped = frame.groupby(by, sort=False)[value]
    return grouped.agg(mean="mean", low="min", high="max", count="count").reset_index()
