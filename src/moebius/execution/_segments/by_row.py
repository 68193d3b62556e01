"""The sorted rows as they are, one expert after another."""

from collections.abc import Sequence

from torch import Tensor

from moebius.execution._ffn import FFNWeights
from moebius.execution._product import product
from moebius.execution._segments.contract import ROWS, Gradients, Layout, add_product, split_into_blocks
from moebius.networks.feed_forward import feed_forward_activation, feed_forward_activation_backward


class ByRow(Layout):
    """One expert after another, a block of rows at a time.

    Arguments:
        counts: the number of rows of each expert.
    """

    def __init__(self, counts: Sequence[int]):
        self.places_by_expert = counts

    @staticmethod
    def capacity(assignments: int, experts: int) -> int:
        """That number: nothing is padded."""
        return assignments

    def forward(self, weights: FFNWeights, x: Tensor, hidden: Tensor | None, y: Tensor) -> None:
        """Write the outputs, and what the backward pass needs."""
        experts = weights.by_expert()
        for expert, begin, end, _ in split_into_blocks(self.places_by_expert):
            inner, inner_bias, outer, outer_bias = experts[expert]
            out = None if hidden is None else hidden[begin:end]
            values = product(x[begin:end], inner, inner_bias, out)
            product(feed_forward_activation(weights.activation, values), outer, outer_bias, y[begin:end])

    def backward(self, weights: FFNWeights, x: Tensor, hidden: Tensor, upstream: Tensor, gradients: Gradients) -> None:
        """Write the gradients."""
        ones, activation = upstream.new_ones(1, ROWS), weights.activation
        experts = weights.by_expert()
        inner_gradients, outer_gradients = (
            None if tensor is None else tensor.unbind() for tensor in (gradients.inner, gradients.outer)
        )
        for expert, begin, end, is_first in split_into_blocks(self.places_by_expert):
            inner, _, outer, _ = experts[expert]
            upstream_block, preactivation = upstream[begin:end], hidden[begin:end]
            values = product(upstream_block, outer.t())
            values = feed_forward_activation_backward(activation, preactivation, values)
            if gradients.rows is not None:
                product(values, inner.t(), None, gradients.rows[begin:end])
            if outer_gradients is not None:
                activated = feed_forward_activation(activation, preactivation)
                add_product(outer_gradients[expert], upstream_block.t(), activated, is_first)
            if inner_gradients is not None:
                add_product(inner_gradients[expert], values.t(), x[begin:end], is_first)
            if gradients.inner_bias is not None:
                # The sum over rows as a product with ones: torch's sum takes several times as long.
                sums = (ones[:, : end - begin] @ values).squeeze(0)
                gradients.inner_bias[expert] += sums
