"""Sums that rows are added to, and that merge: what measures keep."""

from collections.abc import Callable
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from moebius.kit.errors import ArgumentError

_Sums = TypeVar("_Sums", bound="Sums")


class Sums:
    """Named sums in float64, and how many rows they are of.

    Attributes:
        experts: E; 0 before the first rows.
        k: most experts that the router selects for a row.
        names: the names of groups, by grouping.
        sums: the sums by name.
    """

    def __init__(self) -> None:
        self.experts = 0
        self.k = 0
        self.names: dict[str, tuple[str, ...]] = {}
        self.sums: dict[str, Tensor] = {}

    @property
    def rows(self) -> int:
        """T, the number of rows so far, without padding.

        Raises:
            ArgumentError: there is none.
        """
        if "rows" not in self.sums:
            raise ArgumentError("rows", f"{type(self).__name__} has none yet", 0, "measure.update(rows), then frame()")
        return int(self.sums["rows"])

    def frame(self) -> pd.DataFrame:
        """The measure of all rows so far: one observation per line, without gaps, with its null beside it."""
        raise TypeError(f"{type(self).__name__} is a measure without a method frame")

    def merge(self: _Sums, measure: _Sums) -> _Sums:
        """Add the rows of another measure of the same arguments to this one.

        Returns:
            This measure.

        Raises:
            ArgumentError: it is of a gate with another number of experts.
        """
        self._describe(measure.experts, measure.k, measure.names)
        for name, value in measure.sums.items():
            self.add(name, value)
        return self

    def add(self, name: str, value: Tensor | float | int) -> None:
        """Add to the sum of this name, which begins at 0 and is kept in float64.

        Where one is longer, because a group is new, the other counts as 0 there.
        """
        value = torch.as_tensor(value).double()
        if name not in self.sums:
            self.sums[name] = value.clone()
            return
        total = self.sums[name]
        if total.shape != value.shape:
            shape = [max(sizes) for sizes in zip(total.shape, value.shape, strict=True)]
            total, value = _grow(total, shape), _grow(value, shape)
        self.sums[name] = total + value

    def total(self, name: str):
        """The sum of this name as a numpy array; 0 where nothing was added."""
        return self.sums[name].numpy() if name in self.sums else torch.zeros((), dtype=torch.float64).numpy()

    def groupings(self, prefix: str) -> list[str]:
        """The groupings whose sum, called prefix.GROUPING, has rows."""
        names = [name for name in self.sums if name.startswith(f"{prefix}.") and bool(self.sums[name].any())]
        return [name.removeprefix(f"{prefix}.") for name in names]

    def by_grouping(self, prefix: str, frame_of: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
        """The frames of all groupings, one below the other; without columns where there is none."""
        frames = [frame_of(by) for by in self.groupings(prefix)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def group_names(self, by: str, count: int) -> list[str]:
        """The names of the first `count` groups of a grouping; their numbers where they have none."""
        return [*self.names.get(by, ())][:count] or [str(group) for group in range(count)]

    def _describe(self, experts: int, k: int, names: dict[str, tuple[str, ...]]) -> None:
        """Take over what rows say of their gate."""
        if experts and self.experts not in (0, experts):
            rule = f"{type(self).__name__} measures a gate of {self.experts} experts"
            raise ArgumentError("rows", rule, experts, "a measure for each gate")
        self.experts, self.k = experts or self.experts, max(self.k, k)
        for by, of_group in names.items():
            if len(of_group) >= len(self.names.get(by, ())):
                self.names[by] = of_group


def _grow(value: Tensor, shape: list[int]) -> Tensor:
    ends = [end for size, length in zip(value.shape, shape, strict=True) for end in (length - size, 0)]
    return pad(value, ends[::-1])
