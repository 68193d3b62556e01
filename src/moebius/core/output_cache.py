"""What frozen parts say of every row of a data set: computed once, looked up ever after.

A table may take the place of a part only where it is exact: the part is frozen (its parameters stay, its dropout and
batch normalisation are in eval) and a row's input is always the same (no augmentation).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from moebius.core.row_context import ThreadValue, current_context


@dataclass(frozen=True)
class OutputCache:
    """The outputs of frozen parts for all rows of one data set.

    Arguments:
        tables: part → its outputs (N, …), row n's at place n.

    Example:
        >>> import torch
        >>> part = nn.Linear(2, 1)
        >>> memory = OutputCache({part: torch.tensor([[1.0], [2.0], [3.0]])})
        >>> with memory.recalling(torch.tensor([2, 0])):
        ...     cached_outputs(part, rows=2)
        tensor([[3.],
                [1.]])
    """

    tables: dict[nn.Module, Float[Tensor, "N ..."]] = field(default_factory=dict)

    @contextmanager
    def recalling(self, rows: Int[Tensor, " T"]) -> Iterator[None]:
        """Inside the block parts find their outputs here; `rows` are the places of the outermost batch's rows."""
        before, _active.value = _active.value, (self, rows)
        try:
            yield
        finally:
            _active.value = before


# The memory, and the places of the outermost batch's rows; None outside of all blocks.
_active = ThreadValue(None)


def cached_outputs(part: nn.Module, rows: int) -> Float[Tensor, "T ..."] | None:
    """What the part says of the rows of this call, or None where that is not known.

    Arguments:
        part: the module that asks.
        rows: how many rows it was called with.
    """
    active = _active.value
    table = None if active is None else active[0].tables.get(part)
    if active is None or table is None:
        return None
    among = current_context().rows
    places = active[1] if among is None else active[1][among]
    return table[places] if len(places) == rows else None
