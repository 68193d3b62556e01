"""The operators' results in operations that torch differentiates: for derivatives of the operators' gradients."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moebius.networks.feed_forward import feed_forward_activation


def readable_gradients(
    function: Callable[..., Tensor], gradient: Tensor, needs_gradient: Sequence[bool], *inputs: Tensor | None
) -> list[Tensor | None]:
    """The gradients of the inputs by plain operations, so that these gradients have gradients themselves.

    Arguments:
        function: of the inputs, in operations that torch differentiates.
        gradient: of the function's value.
        needs_gradient: for each input, whether its gradient is computed.
        inputs: as the forward saved them.

    Returns:
    For each input its gradient, or None.
    """
    with torch.enable_grad():
        # One input may be a function of another: the weights of assignments are one of the rows. Aliases are not, so
        # that the gradients are those of this function alone.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        y = function(*aliases)
    leaves = [tensor for tensor, needs in zip(aliases, needs_gradient, strict=True) if needs and tensor is not None]
    gradients = iter(torch.autograd.grad(y, leaves, gradient.to(y), create_graph=True, materialize_grads=True))
    return [
        next(gradients) if needs and x is not None else None for x, needs in zip(inputs, needs_gradient, strict=True)
    ]


def readable_ffn(
    order_P: Int[Tensor, " P"],
    row_P: Int[Tensor, " P"],
    counts: Sequence[int],
    activation: str,
    dtype: torch.dtype,
    assignments: int,
    x: Float[Tensor, "T D"],
    inner: Float[Tensor, "E MH D"],
    inner_bias: Float[Tensor, "E MH"] | None,
    outer: Float[Tensor, "E D H"],
    outer_bias: Float[Tensor, "E D"] | None,
    weight_A: Float[Tensor, " A"] | None,
) -> Float[Tensor, "_ D"]:
    """Feed-forward experts, one after another: the weighted sum of each row (T, D), or each assignment's output (A, D).

    Arguments:
        order_P: the kept assignments, expert after expert.
        row_P: their rows.
        counts: the number of kept assignments of each expert.
        activation: of the experts.
        dtype: the number format of the products.
        assignments: A.
        x: T rows.
        inner, inner_bias, outer, outer_bias: the parameters of all experts.
        weight_A: the router's weights; None for each assignment's unweighted output.
    """
    outputs = []
    for expert, rows in enumerate(x.index_select(0, row_P).to(dtype).split(list(counts))):
        biases = [None if bias is None else bias[expert].to(dtype) for bias in (inner_bias, outer_bias)]
        hidden = feed_forward_activation(activation, F.linear(rows, inner[expert].to(dtype), biases[0]))
        outputs.append(F.linear(hidden, outer[expert].to(dtype), biases[1]))
    output = torch.cat(outputs)
    if weight_A is None:
        return output.new_zeros(assignments, output.shape[1]).index_copy(0, order_P, output)
    sum_dtype = torch.promote_types(dtype, torch.float32)
    y = output.new_zeros(len(x), output.shape[1], dtype=sum_dtype)
    return y.index_add(0, row_P, output * weight_A[order_P].to(sum_dtype).unsqueeze(1)).to(dtype)
