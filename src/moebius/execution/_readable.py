"""What the operators compute, in operations that torch differentiates: for derivatives of their derivatives."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moebius.networks.feed_forward import feed_forward_activation


def readable_gradients(
    readable: Callable[..., Tensor], gradient: Tensor, wanted: Sequence[bool], *inputs: Tensor | None
) -> list[Tensor | None]:
    """The gradients of the inputs, by plain operations, so that they have gradients themselves.

    Arguments:
        readable: the function of the inputs, in operations that torch differentiates.
        gradient: of its value.
        wanted: of which inputs gradients are asked for.
        inputs: as they were saved.
    """
    with torch.enable_grad():
        # One input may be a function of another, as the weights of assignments are of the rows. Of aliases none is, and
        # gradients are those of this function alone.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        y = readable(*aliases)
    asked = [tensor for tensor, wants in zip(aliases, wanted, strict=True) if wants and tensor is not None]
    found = iter(torch.autograd.grad(y, asked, gradient.to(y), create_graph=True, materialize_grads=True))
    return [next(found) if wants and x is not None else None for x, wants in zip(inputs, wanted, strict=True)]


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
        counts: how many each expert has.
        activation: of the experts.
        dtype: in which they compute.
        assignments: A.
        x: T rows.
        inner, inner_bias, outer, outer_bias: of all experts.
        weight_A: the router's weights; None for the outputs themselves.
    """
    outputs = []
    for expert, piece in enumerate(x.index_select(0, row_P).to(dtype).split(list(counts))):
        biases = [None if bias is None else bias[expert].to(dtype) for bias in (inner_bias, outer_bias)]
        hidden = feed_forward_activation(activation, F.linear(piece, inner[expert].to(dtype), biases[0]))
        outputs.append(F.linear(hidden, outer[expert].to(dtype), biases[1]))
    output = torch.cat(outputs)
    if weight_A is None:
        return output.new_zeros(assignments, output.shape[1]).index_copy(0, order_P, output)
    wide = torch.promote_types(dtype, torch.float32)
    y = output.new_zeros(len(x), output.shape[1], dtype=wide)
    return y.index_add(0, row_P, output * weight_A[order_P].to(wide).unsqueeze(1)).to(dtype)
