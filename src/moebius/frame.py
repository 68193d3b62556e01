"""Side information for gates that want it, and the place of rows in the outermost batch.

Both follow the rows: a mixture inside a mixture finds the values of just the rows that were sent to it, also through
modules in between that know nothing of them (`nn.Sequential`).
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """What is known about the rows of one call.

    Arguments:
        values: tensors whose first axis is that of the batch they were given for.
        index: for each row of this call, its entry in `values`; None when they are the same.
        rows: for each row of this call, its place in the outermost batch; None when this is it.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    index: Int[Tensor, " T"] | None = None
    rows: Int[Tensor, " T"] | None = None

    def local(self) -> dict[str, Tensor]:
        """The values of just this call's rows."""
        return {name: value if self.index is None else value[self.index] for name, value in self.values.items()}

    def at(self, rows: Int[Tensor, " T"]) -> "Frame":
        """The frame of the rows with these numbers."""
        index = rows if self.index is None else self.index[rows]
        return Frame(self.values, index, rows if self.rows is None else self.rows[rows])

    def repeated(self, times: int) -> "Frame":
        """The frame of rows that are each `times` rows of this one: the tokens of sequences."""
        if times == 1 or (self.rows is None and not self.values):
            return self
        index = self.index
        if index is None and self.values:
            value = next(iter(self.values.values()))
            index = torch.arange(len(value), device=value.device)
        return Frame(
            self.values,
            None if index is None else index.repeat_interleave(times),
            None if self.rows is None else self.rows.repeat_interleave(times),
        )

    def given(self, values: Mapping[str, Tensor]) -> "Frame":
        """The frame with further values, whose first axis is that of this call's rows."""
        return replace(self, values={**self.local(), **values}, index=None)


class Here(threading.local):
    """A value for the blocks that this thread is in: a ContextVar, but one that torch.compile can follow."""

    def __init__(self, value: Any):
        self.value = value


_current = Here(Frame())


def current() -> Frame:
    """The frame of the call that is under way."""
    return _current.value


@contextmanager
def entered(frame: Frame) -> Iterator[None]:
    """Make `frame` the current one inside the block."""
    before, _current.value = _current.value, frame
    try:
        yield
    finally:
        _current.value = before


@contextmanager
def context(**values: Tensor) -> Iterator[None]:
    """Give side information to every mixture called inside the block.

    Arguments:
        values: tensors whose first axis is the batch's (the images', not the tokens').

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Domain(2, 2), [torch.nn.Identity(), torch.nn.Flatten()])
        >>> with mb.context(domain=torch.tensor([0, 1, 1])):
        ...     y = moe(torch.zeros(3, 4))
    """
    with entered(current().given(values)):
        yield
