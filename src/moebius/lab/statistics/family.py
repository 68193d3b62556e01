"""The comparisons of a study: differences whose p values are corrected for each other, and what they show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from moebius.lab.statistics.difference import Difference, paired
from moebius.lab.statistics.equivalence import equivalence
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.paired_rows import paired_rows

# A family names a difference where there is none in at most this share of studies.
LEVEL = 0.05
# Values by seed, or the scores of the same rows.
Values = Mapping[int, float] | Float[np.ndarray, " T"]


@dataclass(frozen=True)
class Contrast:
    """A variant beside another; the difference is `name` minus `reference`.

    Arguments:
        name, reference: of the variants.
        difference: of their scores; None where they have no two seeds in common.
        over: what the pairs are: seeds, or rows of a single training.
        margin: within which differences do not matter; None where none was declared.
        p_holm: of the hypothesis that there is no difference, corrected for the family.
        p_level: of the hypothesis that the difference is the margin or more; None without a margin.
        p_level_holm: the same, corrected for the family.
    """

    name: str
    reference: str
    difference: Difference | None
    over: Literal["seeds", "rows"] = "seeds"
    margin: float | None = None
    p_holm: float | None = None
    p_level: float | None = None
    p_level_holm: float | None = None

    @property
    def differs(self) -> bool:
        """Whether a difference is shown, at 5 % for the whole family."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def is_level(self) -> bool:
        """Whether it is shown that the difference is within the margin, at 5 % for the whole family."""
        return self.p_level_holm is not None and self.p_level_holm < LEVEL

    @property
    def verdict(self) -> str:
        """What is shown.

        "better" or "worse", with one training of each "better as trained" or "worse as trained"; "level" within the
        margin; else "not shown to differ". A difference that is shown and is within the margin is better or worse.
        """
        if self.differs and self.difference is not None:
            word = "better" if self.difference.mean > 0 else "worse"
        elif self.is_level:
            word = "level"
        else:
            return "not shown to differ"
        return word if self.over == "seeds" else f"{word} as trained"


@dataclass(frozen=True)
class Family:
    """The comparisons of a study with its baseline.

    Arguments:
        baseline: the variant that the others are compared with.
        contrasts: one for each other variant, in the study's order.
        over: what the pairs are: seeds, or rows of a single training.
        margin: within which differences do not matter; None where none was declared.
        chosen: the variant with the best mean on held-out rows; None where no rows are held out.
    """

    baseline: str
    contrasts: tuple[Contrast, ...]
    over: Literal["seeds", "rows"] = "seeds"
    margin: float | None = None
    chosen: str | None = None

    @property
    def tested(self) -> int:
        """The number of comparisons that p values are corrected for."""
        return sum(contrast.p_holm is not None for contrast in self.contrasts)

    def by_verdict(self) -> dict[str, list[Contrast]]:
        """The contrasts of each verdict that occurs: better, worse, level, not shown to differ."""
        groups: dict[str, list[Contrast]] = {}
        for word in ("better", "worse", "level", "not"):
            for contrast in self.contrasts:
                if contrast.verdict.split()[0] == word:
                    groups.setdefault(contrast.verdict, []).append(contrast)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `results.json` holds them."""
        return {
            "baseline": self.baseline,
            "over": self.over,
            "margin": self.margin,
            "comparisons": self.tested,
            "chosen_on_validation": self.chosen,
            "pairs": [{**asdict(contrast), "verdict": contrast.verdict} for contrast in self.contrasts],
        }


def correct(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """The contrasts as one family: with p values that Holm's procedure corrects.

    Differences and levelness are two hypotheses about each pair, and two families: at most 5 % of studies without any
    difference name one, and at most 5 % of studies without any level pair call one level. Holm's procedure holds that
    whatever the comparisons have to do with each other. Dunnett's is sharper where all variants vary equally and
    independently of their seeds, and wrong where they do not, as where one variant collapses in some seeds.

    Arguments:
        contrasts: with their differences and margins.

    Example:
        >>> a, b = paired([0.7, 0.71, 0.72], [0.6, 0.605, 0.63]), paired([0.7, 0.71, 0.72], [0.7, 0.72, 0.72])
        >>> [contrast.verdict for contrast in correct([Contrast("a", "x", a), Contrast("b", "x", b)])]
        ['better', 'not shown to differ']

    Reference: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure; Dunnett 1955, A Multiple Comparison
    Procedure for Comparing Several Treatments with a Control.
    """
    p_values = [None if contrast.difference is None else contrast.difference.p for contrast in contrasts]
    levels = [
        None
        if contrast.difference is None or contrast.margin is None
        else equivalence(contrast.difference, contrast.margin)
        for contrast in contrasts
    ]
    corrected = zip(contrasts, holm(p_values), levels, holm(levels), strict=True)
    return tuple(
        replace(contrast, p_holm=p_holm, p_level=p_level, p_level_holm=p_level_holm)
        for contrast, p_holm, p_level, p_level_holm in corrected
    )


def compare_with_baseline(
    scores: Mapping[str, Values],
    baseline: str,
    margin: float | None = None,
    chosen: str | None = None,
    level: float = 0.95,
) -> Family:
    """Every variant beside the baseline: the comparisons that report, terminal, `moebius compare` and JSON show.

    Arguments:
        scores: variant → seed → score; or, for single trainings, variant → score of each row (T,), the rows the same.
        baseline: a variant among them.
        margin: within which differences do not matter, in the unit of the score; None for none.
        chosen: the variant with the best mean on held-out rows; None where no rows are held out.
        level: of the intervals, in (0, 1).

    Raises:
        ArgumentError: the margin is not above 0, or rows are of different numbers.

    Example:
        >>> scores = {"a": {0: 0.60, 1: 0.62, 2: 0.61}, "b": {0: 0.70, 1: 0.71, 2: 0.72}}
        >>> family = compare_with_baseline(scores, "a")
        >>> [(contrast.name, contrast.verdict) for contrast in family.contrasts]
        [('b', 'better')]
    """
    reference = scores[baseline]
    over: Literal["seeds", "rows"] = "seeds" if isinstance(reference, Mapping) else "rows"
    contrasts = [
        Contrast(name, baseline, difference_of(values, reference, level), over, margin)
        for name, values in scores.items()
        if name != baseline
    ]
    return Family(baseline, correct(contrasts), over, margin, chosen)


def difference_of(a: Values, b: Values, level: float = 0.95) -> Difference | None:
    """The difference of a − b over the seeds that both have, or over rows; None with fewer than two common seeds."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return paired(a, b, level) if len(a.keys() & b.keys()) > 1 else None
    return paired_rows(np.asarray(a), np.asarray(b), level)
