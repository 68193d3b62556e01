"""How many seeds the differences of a finished study need."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.comparison.models import Model, find_models
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.numbers import NONE, count, rate
from moebius.lab.report.source import measure_words
from moebius.lab.report.text_columns import text_columns
from moebius.lab.statistics import power as chances
from moebius.lab.statistics.family import difference_of

# Of the JSON of a plan; docs/results-schema.md describes it.
SCHEMA = 1


@dataclass(frozen=True)
class Needed:
    """A number of seeds, with its interval: the standard deviation that it goes by is itself an estimate.

    Arguments:
        seeds: for the estimated standard deviation.
        low, high: for the ends of its 95 % interval.
    """

    seeds: int
    low: int
    high: int


@dataclass(frozen=True)
class PlannedPair:
    """A variant beside the baseline.

    Arguments:
        name: of the variant.
        seeds: that both have.
        mean: of the paired differences, so far.
        sd: standard deviation of the paired differences; None where they have no spread.
        sd_low, sd_high: its 95 % interval.
        power: with which that many seeds find the difference that is asked for.
        to_find: seeds with which it is found with the power that is asked for.
        to_show_level: seeds with which equal variants are shown to be level within it, with that power.
    """

    name: str
    seeds: int
    mean: float
    sd: float | None = None
    sd_low: float | None = None
    sd_high: float | None = None
    power: float | None = None
    to_find: Needed | None = None
    to_show_level: Needed | None = None


@dataclass(frozen=True, repr=False)
class SeedPlan:
    """What `plan_seeds` gives.

    Arguments:
        baseline: the variant that the others are compared with.
        score: name of the task's score.
        difference: that is to be found, and within which equal variants are to be shown to be level.
        power: the chance of that.
        level: of the tests, for all comparisons together.
        comparisons: for which they are corrected.
        pairs: one for each other variant.
    """

    baseline: str
    score: str
    difference: float
    power: float
    level: float
    comparisons: int
    pairs: tuple[PlannedPair, ...]

    def frame(self) -> Frame:
        """A line for each pair."""
        lines = []
        for pair in self.pairs:
            line = asdict(pair)
            for name in ("to_find", "to_show_level"):
                needed = line.pop(name) or dict.fromkeys(("seeds", "low", "high"))
                line |= {name: needed["seeds"], f"{name}_low": needed["low"], f"{name}_high": needed["high"]}
            lines.append(line)
        return make_frame(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; see docs/results-schema.md."""
        return {"schema": SCHEMA, **asdict(self), "pairs": [asdict(pair) for pair in self.pairs]}

    def text(self, width: int = 80) -> str:
        """Lines for a terminal.

        Arguments:
            width: most characters of a line.
        """
        title = f"{measure_words(self.score)}, minus {self.baseline}, paired by seed"
        headings = ["variant", "seeds", "sd", "power now", "to find it", "to show level"]
        rows = []
        for pair in self.pairs:
            power = NONE if pair.power is None else f"{100 * pair.power:.0f} %"
            needed = [_needed_text(each) for each in (pair.to_find, pair.to_show_level)]
            rows.append([pair.name, str(pair.seeds), rate(pair.sd), power, *needed])
        corrected = f", each at {self.level:g}/{self.comparisons} (Holm's first step)" if self.comparisons > 1 else ""
        remarks = [
            f"Seeds that a true difference of {rate(self.difference)} needs to be found with a power of "
            f"{100 * self.power:.0f} %, and seeds that equal variants need to be shown to be level within it, at the "
            f"level {self.level:g} for {self.comparisons} comparison{'s' * (self.comparisons > 1)}{corrected}. In "
            "parentheses: for the ends of the 95 % interval of the standard deviation (sd), which few seeds leave wide."
        ]
        if any(pair.sd is None for pair in self.pairs):
            remarks.append(f"{NONE}: every seed differs by the same, so nothing is known of how differences vary.")
        lines = [title, *text_columns(headings, rows, width, folded="variant")]
        for remark in remarks:
            lines += ["", *textwrap.wrap(remark, width)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()


def plan_seeds(
    folder: str | Path,
    difference: float = 0.005,
    power: float = 0.8,
    level: float = 0.05,
    comparisons: int | None = None,
    baseline: str | None = None,
) -> SeedPlan:
    """How many seeds a difference needs, by how the paired differences of a finished study vary.

    For each variant and the baseline: n such that the paired t test at level / comparisons finds the difference with
    the power. Holm's procedure tests the smallest p value at this level, so a single true difference is found with just
    this power, and one of several with more.

    Arguments:
        folder: of a study with two seeds or more.
        difference: the true difference of the mean scores, above 0.
        power: the chance to find it, in (0, 1).
        level: of the study's tests together, in (0, 1).
        comparisons: for which p values will be corrected; None for one less than the study has variants.
        baseline: name of the variant that the others are compared with; None for the study's own.

    Raises:
        StudyError: the folder holds no study, or no two variants have two seeds in common.
        ArgumentError: a number is outside of its range, or no variant is called like the baseline.

    Example:
        >>> plan = plan_seeds("runs/quickstart", difference=0.01)  # doctest: +SKIP
        >>> plan.frame()[["name", "sd", "to_find", "to_find_low", "to_find_high"]]  # doctest: +SKIP

    Reference: `moebius.lab.statistics.power`.
    """
    for name, value, usual in (("power", power, 0.8), ("level", level, 0.05)):
        if not 0 < value < 1:
            raise ArgumentError(name, "needs a number between 0 and 1", value, f"{name}={usual}")
    if not difference > 0:
        raise ArgumentError("difference", "needs a number above 0", difference, "difference=0.005")
    if comparisons is not None and comparisons < 1:
        raise ArgumentError("comparisons", "needs a number of at least 1", comparisons, "comparisons=13")
    if not (Path(folder) / "study.json").is_file():
        raise StudyError(f"{folder}: is no folder of a study", "moebius plan runs/quickstart")
    reference, *others = find_models([folder], baseline)
    comparisons = comparisons or len(others)
    pairs = [_plan_pair(model, reference, difference, power, level / comparisons) for model in others]
    planned = tuple(pair for pair in pairs if pair is not None)
    if not planned:
        rule = f"{folder}: one seed tells nothing of how differences vary, and a plan goes by that"
        raise StudyError(rule, _run_command(reference))
    return SeedPlan(reference.name, reference.score_name, difference, power, level, comparisons, planned)


def _plan_pair(model: Model, reference: Model, difference: float, power: float, level: float) -> PlannedPair | None:
    estimate = difference_of(model.score_by_seed(), reference.score_by_seed())
    if estimate is None:
        return None
    if estimate.sd is None:
        return PlannedPair(model.name, estimate.count, estimate.mean)
    low, high = chances.sd_interval(estimate.sd, estimate.count)
    return PlannedPair(
        model.name,
        estimate.count,
        estimate.mean,
        estimate.sd,
        low,
        high,
        chances.power(difference, estimate.sd, estimate.count, level),
        *(
            Needed(*(search(sd=sd, power_level=power, level=level) for sd in (estimate.sd, low, high)))
            for search in (
                partial(chances.seeds_needed, difference),
                partial(chances.seeds_for_equivalence, difference),
            )
        ),
    )


def _needed_text(needed: Needed | None) -> str:
    return NONE if needed is None else f"{count(needed.seeds)} ({count(needed.low)} … {count(needed.high)})"


def _run_command(model: Model) -> str:
    words: Sequence[str] = ["moebius", "run", str(model.about.get("reference") or model.study.name)]
    preset = model.about.get("preset")
    return " ".join([*words, *(["--preset", str(preset)] if preset else []), "--seeds", "5", "--out", str(model.study)])
