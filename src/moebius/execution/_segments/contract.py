"""What every way to compute feed-forward experts on sorted rows reads and writes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.execution._ffn import FFNWeights

# Rows of a block: few enough that their hidden layer stays in the cache, many enough that the products run at full
# speed. Sizes between 512 and 4,096 made little difference in measurements, which docs/execution.md gives.
ROWS = 2048


@dataclass(frozen=True)
class Gradients:
    """Where the gradients are written; None for those that are not needed. A rows, as sorted, E experts."""

    rows: Float[Tensor, "A D"] | None
    inner: Float[Tensor, "E MH D"] | None
    inner_bias: Float[Tensor, "E MH"] | None
    outer: Float[Tensor, "E D H"] | None


@dataclass(frozen=True)
class Segments:
    """What is computed: all experts' weights, A rows sorted by expert, and each expert's number of rows."""

    weights: FFNWeights
    rows: Float[Tensor, "A D"]
    counts: Sequence[int]


class Layout(ABC):
    """One way to compute the experts."""

    @abstractmethod
    def forward(self, segments: Segments, hidden: Float[Tensor, "A MH"] | None, outputs: Float[Tensor, "A D"]) -> None:
        """Write the experts' outputs to `outputs`, and the first layers' to `hidden`, if it is not None."""

    @abstractmethod
    def backward(
        self,
        segments: Segments,
        hidden: Float[Tensor, "A MH"],
        upstream: Float[Tensor, "A D"],
        gradients: Gradients,
    ) -> None:
        """Write the gradients, from those of the outputs, `upstream`. Those of experts without rows are left alone."""


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
