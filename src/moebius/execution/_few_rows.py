"""Dense layers for a few assignments without gradients: each reads its expert's weights where they are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.execution._ffn import FFNWeights
from moebius.execution._product import product
from moebius.kit.processor import multiplies_in_tiles
from moebius.networks.feed_forward import feed_forward_activation


def few_products(
    x: Float[Tensor, "A D"], weight: Float[Tensor, "E C D"], bias: Float[Tensor, "E C"] | None, experts: Sequence[int]
) -> Float[Tensor, "A C"]:
    """Each row through the dense layer of its expert, without gradients.

    Example:
        >>> import torch
        >>> few_products(torch.ones(2, 1), torch.tensor([[[2.0]], [[3.0]]]), None, [1, 0]).tolist()
        [[3.0], [2.0]]
    """
    y = x.new_empty(len(x), weight.shape[1])
    if x.dtype == torch.bfloat16 and multiplies_in_tiles():
        # A tile of rows would hold a single one: a product with a vector reads the weights in less time.
        for row, out, expert in zip(x.unbind(), y.unbind(), experts, strict=True):
            if bias is None:
                torch.mv(weight[expert], row, out=out)
            else:
                torch.addmv(bias[expert], weight[expert], row, out=out)
        return y
    for place, expert in enumerate(experts):
        row, out = x[place : place + 1], y[place : place + 1]
        product(row, weight[expert], None if bias is None else bias[expert], out)
    return y


def few_ffn_outputs(weights: FFNWeights, x: Float[Tensor, "A D"], experts: Sequence[int]) -> Float[Tensor, "A D"]:
    """Each row through its feed-forward expert, without gradients; rows and weights are in one format."""
    hidden = feed_forward_activation(weights.activation, few_products(x, weights.inner, weights.inner_bias, experts))
    return few_products(hidden, weights.outer, weights.outer_bias, experts)
