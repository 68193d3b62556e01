"""The outputs of frozen parts for every row of a data set: computed once, looked up afterwards.

A table of outputs may replace a part only where it is exact: the part is frozen (its parameters stay, its dropout and
batch normalisation are in evaluation mode) and a row's input is always the same (no augmentation).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from moebius.core.row_context import ThreadValue, current_context


@dataclass(frozen=True)
class OutputCache:
    """The outputs of frozen parts for all N rows of one data set.

    Arguments:
        tables: part → its outputs (N, …), in the order of the data set's rows.

    Example:
        >>> import torch
        >>> part = nn.Linear(2, 1)
        >>> cache = OutputCache({part: torch.tensor([[1.0], [2.0], [3.0]])})
        >>> with cache.serve_rows(torch.tensor([2, 0])):
        ...     cached_outputs(part, rows=2)
        tensor([[3.],
                [1.]])
    """

    tables: dict[nn.Module, Float[Tensor, "N ..."]] = field(default_factory=dict)

    def serve_rows(self, rows: Int[Tensor, " T"]) -> AbstractContextManager[None]:
        """Let parts that are called inside the block look their outputs up.

        Arguments:
            rows: the data set's row numbers of the outermost batch.
        """
        return self._serve(rows) if self.tables or _active_cache.value is not None else nullcontext()

    @contextmanager
    def _serve(self, rows: Int[Tensor, " T"]) -> Iterator[None]:
        previous, _active_cache.value = _active_cache.value, (self, rows)
        try:
            yield
        finally:
            _active_cache.value = previous


# The cache and the data set's row numbers of the outermost batch; None outside of all blocks.
_active_cache = ThreadValue(None)


def cached_outputs(part: nn.Module, rows: int) -> Float[Tensor, "T ..."] | None:
    """A part's outputs for the rows of this call; None where the active cache has none.

    Arguments:
        part: the part that is called.
        rows: T, how many rows it is called with.
    """
    active = _active_cache.value
    table = None if active is None else active[0].tables.get(part)
    if active is None or table is None:
        return None
    batch_rows = current_context().rows
    data_rows = active[1] if batch_rows is None else active[1][batch_rows]
    return table[data_rows] if len(data_rows) == rows else None
