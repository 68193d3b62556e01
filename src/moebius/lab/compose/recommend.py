"""Which way to take: the rule, and the front of score against cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moebius.kit.errors import ArgumentError
from moebius.lab.compose.result import Result
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.paired_rows import paired_rows

UNITS = ("multiply_adds", "ms")
# A score is shown to be below the highest, and a cheaper way's loss to be above the least, at this level: lower than
# that of a claim, because to pass over a better way is the error that matters.
LEVEL = 0.8
# Costs that differ by less are equal.
EQUAL = 1.05
Cost = Mapping[str, Any] | str | float | int | None


def parse_cost(cost: Cost) -> tuple[str | None, float]:
    """Unit and limit of a cost.

    Arguments:
        cost: {"multiply_adds": 1e6}, {"ms": 0.5}, the same as a text, "ms=0.5", or a number of multiply-adds; None for
            no limit.

    Raises:
        ArgumentError: it is none of these.

    Example:
        >>> parse_cost("ms=0.5"), parse_cost(1e6)
        (('ms', 0.5), ('multiply_adds', 1000000.0))
    """
    if cost is None:
        return None, math.inf
    unit, value = "multiply_adds", cost
    if isinstance(cost, Mapping) and len(cost) == 1:
        unit, value = next(iter(cost.items()))
    elif isinstance(cost, str) and "=" in cost:
        unit, _, value = (part.strip() for part in cost.partition("="))
    try:
        limit = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        limit = math.nan
    if unit not in UNITS or not limit > 0:
        rule = "needs multiply_adds or ms of a row, and a number above 0"
        raise ArgumentError("cost", rule, cost, 'cost={"multiply_adds": 1e6}, or cost={"ms": 0.5}')
    return unit, limit


def cost_unit(results: Sequence[Result]) -> str:
    """Multiply-adds where all candidates have them, else milliseconds."""
    return "multiply_adds" if all(each.multiply_adds is not None for each in _candidates(results)) else "ms"


def recommend(results: Sequence[Result], cost: Cost = None) -> str:
    """The cheapest way that is not shown to be below the best of those that cost no more than asked.

    Ways are kept whose score is not shown to be below the highest, by paired differences on the judging rows and p
    values after Holm at a level of 80 %: the highest is one of many, also by chance, so that what is only near it has
    to stay. Of these the one with the least loss is the best, because losses tell ways apart with fewer rows
    than scores of right and wrong. The cheapest is recommended whose loss is not shown to be higher, by the 80 %
    interval of the paired difference; of ways that cost the same, within 5 %, the one with the least loss. Controls are
    no candidates.

    Arguments:
        results: of all ways.
        cost: the most that a row may cost, as for `parse_cost`.

    Raises:
        ArgumentError: no way costs so little, or costs in this unit are not known.
    """
    unit, limit = parse_cost(cost)
    candidates = _candidates(results)
    unit = unit or cost_unit(results)
    priced = [each for each in candidates if each.cost(unit) is not None]
    if not priced:
        rule = "is not known in multiply-adds: a part of every way is no network of torch"
        raise ArgumentError("cost", rule, cost, 'cost={"ms": 0.5}')
    affordable = [each for each in priced if _price(each, unit) <= limit]
    if not affordable:
        least = min(priced, key=lambda each: _price(each, unit))
        rule = f"is below what the cheapest way, {least.way}, takes for a row"
        raise ArgumentError("cost", rule, cost, f'cost={{"{unit}": {_price(least, unit) * EQUAL:.3g}}}')
    highest = max(affordable, key=lambda each: (each.score, -_loss(each)))
    kept = not_below(affordable, highest)
    best = min(kept, key=lambda each: (_loss(each), -each.score))
    enough = [each for each in kept if each is best or not has_higher_loss(each, best)]
    least_price = min(_price(each, unit) for each in enough)
    equal = [each for each in enough if _price(each, unit) <= EQUAL * least_price]
    return min(equal, key=lambda each: (_loss(each), -each.score)).way


def not_below(results: Sequence[Result], highest: Result) -> list[Result]:
    """The ways whose score is not shown to be below the highest on the same rows, after Holm, and the highest."""
    others = [each for each in results if each is not highest]
    differences = [paired_rows(np.asarray(each.scores), np.asarray(highest.scores)) for each in others]
    p_values = holm([difference.p for difference in differences])
    # Without a p value there is no spread: the difference is the same on every row, 0 or below.
    below = [p < 1 - LEVEL if p is not None else gap.mean < 0 for gap, p in zip(differences, p_values, strict=True)]
    return [highest, *(each for each, is_below in zip(others, below, strict=True) if not is_below)]


def has_higher_loss(result: Result, best: Result) -> bool:
    """Whether a way's loss is shown to be above another's, on the same rows; infinite losses are above all others."""
    if not math.isfinite(best.loss) or not math.isfinite(result.loss):
        return math.isfinite(best.loss)
    difference = paired_rows(np.asarray(result.losses), np.asarray(best.losses), LEVEL)
    return difference.mean > 0 if difference.low is None else difference.low > 0


def find_front(results: Sequence[Result], unit: str) -> list[str]:
    """The ways of which no other has a score as high at a lower cost, from the cheapest.

    Arguments:
        results: of all ways; controls are left out.
        unit: of the cost.
    """
    front: list[Result] = []
    ordered = sorted(_candidates(results), key=lambda each: (_price(each, unit), -each.score))
    for each in ordered:
        if not math.isinf(_price(each, unit)) and (not front or each.score > front[-1].score):
            front.append(each)
    return [each.way for each in front]


def _candidates(results: Sequence[Result]) -> list[Result]:
    return [each for each in results if each.is_tried and not each.control and math.isfinite(each.score)]


def _price(result: Result, unit: str) -> float:
    cost = result.cost(unit)
    return math.inf if cost is None else cost


def _loss(result: Result) -> float:
    return result.loss if math.isfinite(result.loss) else math.inf
