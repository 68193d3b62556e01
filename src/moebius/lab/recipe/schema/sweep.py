"""The keys of a recipe's `sweep`."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import Strict, place_of
from moebius.lab.checks.wording import validate

MOST_POINTS = 100_000
"""Most points of a sweep, and values of a range."""


class RangeSpec(Strict):
    """The range of a swept key, in place of a list of values.

    Arguments:
        low: the smallest value.
        high: the largest value, above low. Where both are whole numbers, so are all values.
        scale: how values are spread and drawn: linear, or log for rates and weights, whose low is above 0.
        count: number of values in a grid, 2 to 100000; random and optuna draw from the whole range.
    """

    low: int | float
    high: int | float
    scale: Literal["linear", "log"] = "linear"
    count: int | None = Field(default=None, ge=2, le=MOST_POINTS)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """The ends are in order, and above 0 where logarithms are taken."""
        low, high = values.get("low"), values.get("high")
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return
        if low >= high:
            yield Problem(("high",), f"needs a number above low ({low:g})", high)
        elif values.get("scale") == "log" and low <= 0:
            yield Problem(("low",), "needs a number above 0, for the scale is log", low, "scale: linear")

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class SweepSpec(Strict):
    """Values that are tried for keys of models and trainings; the held-out rows choose, and the test rows do not.

    Arguments:
        keys: by dotted key (training.gate.lr, model.experts.count, variants.NAME.training.losses[0].weight), a list
            of values, or a range with low, high, scale and count; at least one.
        method: grid tries all combinations; random draws them; optuna proposes them from the results so far.
        trials: number of combinations that random and optuna try for each variant, 1 to 100000.
        variants: names of the variants that are swept; null for all that a key applies to.
        seed: of the draws of random and optuna.
        most: largest number of points of all variants together, 1 to 100000.
    """

    keys: dict[str, Annotated[Any, place_of("swept-values")]] = Field(min_length=1)
    method: Literal["grid", "random", "optuna"] = "grid"
    trials: Annotated[int, Field(ge=1, le=MOST_POINTS)] = 20
    variants: Annotated[list[str], Field(min_length=1)] | None = None
    seed: int = Field(default=0, ge=0)
    most: Annotated[int, Field(ge=1, le=MOST_POINTS)] = 1000

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """Each key has a list of values or a range."""
        keys = values.get("keys")
        for key, tried in keys.items() if isinstance(keys, Mapping) else ():
            place = ("keys", key)
            if isinstance(tried, Mapping):
                spec, problems = validate(RangeSpec, tried, place)
                yield from problems
                if spec is not None and spec.count is None and values.get("method", "grid") == "grid":
                    yield Problem((*place, "count"), "is missing, for a grid needs a number of values", fix="count: 4")
            elif not isinstance(tried, list) or not tried:
                yield Problem(place, "needs a list of values, or a range", tried, "{low: 1e-4, high: 1e-2, count: 3}")
