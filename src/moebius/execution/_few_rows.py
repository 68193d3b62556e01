"""Feed-forward experts for a few assignments without gradients: each reads its expert's weights where they are."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from moebius.execution._ffn import FFNWeights
from moebius.execution._product import product
from moebius.networks.feed_forward import feed_forward_activation


def few_rows_ffn(weights: FFNWeights, rows: Float[Tensor, "A D"], experts: Sequence[int]) -> Float[Tensor, "A D"]:
    """The output of each row's expert, in the number format of the weights, without gradients.

    Arguments:
        weights: of all experts, in the format of the rows.
        rows: one for each assignment.
        experts: the assignments' experts.
    """
    hidden = rows.new_empty(len(rows), weights.inner.shape[1])
    outputs = rows.new_empty(len(rows), weights.outer.shape[1])
    _write_products(rows, weights.inner, weights.inner_bias, experts, hidden)
    hidden = feed_forward_activation(weights.activation, hidden)
    _write_products(hidden, weights.outer, weights.outer_bias, experts, outputs)
    return outputs


def _write_products(x: Tensor, weight: Tensor, bias: Tensor | None, experts: Sequence[int], out: Tensor) -> None:
    for place, expert in enumerate(experts):
        row, target = x[place : place + 1], out[place : place + 1]
        product(row, weight[expert], None if bias is None else bias[expert], target)


def sum_few(outputs: Float[Tensor, "A D"], row_A: Tensor, weight_A: Tensor, rows: int) -> Float[Tensor, "{rows} D"]:
    """Σ weight_a · outputs_a over the assignments a of each row."""
    weight_A = weight_A.to(outputs.dtype)
    if rows == 1:
        return weight_A.unsqueeze(0) @ outputs
    return outputs.new_zeros(rows, outputs.shape[1]).index_add_(0, row_A, weight_A.unsqueeze(1) * outputs)
