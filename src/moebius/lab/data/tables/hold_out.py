"""Which rows of a table are held out: at random, by group, or the latest."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int, Shaped

from moebius.kit.errors import ArgumentError
from moebius.lab.data.stratify import mark_test_rows


@dataclass(frozen=True)
class HoldOut:
    """How rows are held out, the same in every call.

    By time, the latest rows are held out, and of rows of one time those that stand last in the table. By group, whole
    groups are drawn at random until their rows are as near as possible to the share. Else rows are drawn at random, the
    same share of each class where the target has classes.

    Arguments:
        groups: (T,), number of each row's group; None = rows have no groups.
        times: (T,), time of each row as a number; None = rows have no times.
        seed: of the random choice.

    Example:
        >>> HoldOut(times=np.array([3, 1, 2, 4])).mark(0.5, None).tolist()
        [True, False, False, True]
        >>> HoldOut(groups=np.array([0, 0, 1, 1])).mark(0.5, None).sum()
        np.int64(2)
    """

    groups: Int[np.ndarray, "T"] | None = None
    times: Shaped[np.ndarray, "T"] | None = None
    seed: int = 0

    def take(self, rows: np.ndarray) -> "HoldOut":
        """The same for the rows at these positions."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, groups=groups, times=None if self.times is None else self.times[rows])

    def mark(self, share: float, labels: Int[np.ndarray, "T"] | None, rows: int | None = None) -> Bool[np.ndarray, "T"]:
        """Mark the rows to hold out: at least one, and at most all but one.

        Arguments:
            share: share of the rows, strictly between 0 and 1.
            labels: (T,), class of each row; None where the target has no classes.
            rows: T, where nothing else tells.

        Raises:
            ArgumentError: there is a single group.
        """
        if self.times is not None:
            return self._mark_latest(self.times, share)
        if self.groups is not None:
            return self._mark_groups(self.groups, share)
        if labels is not None:
            return mark_test_rows(labels, share, self.seed)
        assert rows is not None
        return mark_test_rows(np.zeros(rows, dtype=np.int64), share, self.seed)

    def _mark_latest(self, times: np.ndarray, share: float) -> np.ndarray:
        is_marked = np.zeros(len(times), dtype=bool)
        order = np.argsort(times, kind="stable")
        is_marked[order[len(times) - min(max(1, round(share * len(times))), len(times) - 1) :]] = True
        return is_marked

    def _mark_groups(self, groups: np.ndarray, share: float) -> np.ndarray:
        numbers, sizes = np.unique(groups, return_counts=True)
        if len(numbers) < 2:
            rule = "needs a column with at least two values, of which one is held out"
            raise ArgumentError("group", rule, len(numbers), "group: null")
        order = np.random.default_rng(self.seed).permutation(len(numbers))
        distance = np.abs(np.cumsum(sizes[order])[:-1] - share * len(groups))
        return np.isin(groups, numbers[order[: int(distance.argmin()) + 1]])
