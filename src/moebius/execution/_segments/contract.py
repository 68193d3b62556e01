"""What every way to compute feed-forward experts on sorted rows reads and writes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from moebius.execution._ffn import FFNWeights

# Rows of a block: few enough that their hidden layer stays in the cache, many enough that the products run at full
# speed. Sizes between 512 and 4,096 made little difference in measurements, which docs/execution.md gives.
ROWS = 2048


@dataclass(frozen=True)
class Gradients:
    """Where the gradients are written; None for those that are not needed. P rows as laid out, E experts."""

    rows: Float[Tensor, "P D"] | None
    inner: Float[Tensor, "E MH D"] | None
    inner_bias: Float[Tensor, "E MH"] | None
    outer: Float[Tensor, "E D H"] | None


class Layout(ABC):
    """One way to lay out rows that are sorted by expert, and to compute the experts on them.

    The rows lie one after another, expert after expert, and there may be padding after the last rows of an expert.
    Padding repeats rows, so that its values are as large as theirs, and its upstream gradients are 0.

    Attributes:
        source_P: for each of the P places the number of the sorted row there, of padding that of a row that it repeats;
            None where the sorted rows lie as they are.
        place_A: the places of the A sorted rows; None likewise.
        places_by_expert: the number of each expert's places.
    """

    source_P: Int[Tensor, " P"] | None = None
    place_A: Int[Tensor, " A"] | None = None
    places_by_expert: Sequence[int]

    @staticmethod
    @abstractmethod
    def capacity(assignments: int, experts: int) -> int:
        """The largest number of places of so many assignments."""

    @abstractmethod
    def forward(
        self,
        weights: FFNWeights,
        x: Float[Tensor, "P D"],
        hidden: Float[Tensor, "C MH"] | None,
        y: Float[Tensor, "C D"],
    ) -> None:
        """Write the experts' outputs to the first P rows of `y`, and the first layers' to `hidden`, unless None."""

    @abstractmethod
    def backward(
        self,
        weights: FFNWeights,
        x: Float[Tensor, "P D"],
        hidden: Float[Tensor, "C MH"],
        upstream: Float[Tensor, "P D"],
        gradients: Gradients,
    ) -> None:
        """Write the gradients, from those of the outputs, `upstream`. Those of experts without rows are undefined."""

    def lay_out(self, values_A: Shaped[Tensor, "A ..."]) -> Shaped[Tensor, "P ..."]:
        """The sorted rows' values at their places; padding repeats some."""
        return values_A if self.source_P is None else values_A[self.source_P]

    def take_rows(self, values_P: Shaped[Tensor, "C ..."], rows: int) -> Shaped[Tensor, "A ..."]:
        """The values at the places of the sorted rows, of which there are `rows`."""
        return values_P[:rows] if self.place_A is None else values_P.index_select(0, self.place_A)

    def clear_padding(self, values_P: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The values, with 0 in the places of padding."""
        if self.place_A is None:
            return values_P
        return torch.zeros_like(values_P).index_copy_(0, self.place_A, values_P[self.place_A])


def split_into_blocks(counts: Sequence[int]) -> Iterator[tuple[int, int, int, bool]]:
    """Expert, first row and end of every block of at most `ROWS` rows, and whether it is the expert's first block.

    Example:
        >>> list(split_into_blocks([2, 0, 1]))
        [(0, 0, 2, True), (2, 2, 3, True)]
    """
    begin = 0
    for expert, count in enumerate(counts):
        blocks = -(-count // ROWS)
        for block in range(blocks):
            yield expert, begin + count * block // blocks, begin + count * (block + 1) // blocks, block == 0
        begin += count


def add_product(total: Tensor, left: Tensor, right: Tensor, is_first: bool) -> None:
    """Write left · right into `total` if it is the first product, else add it."""
    if total.dtype == left.dtype:
        torch.mm(left, right, out=total) if is_first else total.addmm_(left, right)
    elif is_first:
        total.copy_(torch.mm(left, right))
    else:
        total.add_(torch.mm(left, right))
