"""Feed-forward experts, one contiguous segment of rows after another: two operators, so that compilers see no loop.

A segment is small enough to stay in the processor's cache from the first product to the second, forward and backward,
and the gradient of each expert's weights is written once, into its place among the others.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from moebius.core.transforms import needs_second_backward
from moebius.execution._product import product
from moebius.execution._readable import readable_ffn, readable_gradients
from moebius.networks.feed_forward import feed_forward_activation, feed_forward_activation_backward

# Rows that go through an expert at a time: few enough that their hidden layer stays in the cache, enough that the
# products run at full speed. Between 512 and 4,096 it mattered little in trials; docs/execution.md says how little.
ROWS = 2048


Piece = tuple[int, int, int]


def _pieces(counts: list[int]) -> Iterator[Piece]:
    """Expert, begin and end of every piece of a segment."""
    begin = 0
    for expert, count in enumerate(counts):
        pieces = -(-count // ROWS)
        for piece in range(pieces):
            yield expert, begin + count * piece // pieces, begin + count * (piece + 1) // pieces
        begin += count


@torch.library.custom_op("moebius::sorted_ffn", mutates_args=())
def sorted_ffn(
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    row_A: Tensor,
    weight_A: Tensor | None,
    order_A: Tensor,
    counts_E: Tensor,
    activation: str,
    dtype: torch.dtype,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the experts, and what the backward pass wants: their first layers' outputs, and their own.

    With weights the outputs are multiplied by them and added up row by row, (T, D); without, they are one for each
    assignment, (A, D), zero where it was not kept.
    """
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    rows = row_A[order]
    gathered = x.index_select(0, rows).to(dtype)
    outputs = gathered.new_empty(len(row_A), outer.shape[1])
    hidden = gathered.new_empty(len(row_A) if keep else 0, inner.shape[1])
    # All experts' at once, which is quicker than one by one.
    inner_E, outer_E = inner.unbind(), outer.unbind()
    biases_E = [None if bias is None else bias.to(dtype).unbind() for bias in (inner_bias, outer_bias)]
    current, w1, w2 = -1, inner, outer
    for expert, begin, end in _pieces(counts):
        if expert != current:
            current, w1, w2 = expert, inner_E[expert].to(dtype), outer_E[expert].to(dtype)
        b1, b2 = (None if bias_E is None else bias_E[expert] for bias_E in biases_E)
        before = product(gathered[begin:end], w1, b1, hidden[begin:end] if keep else None)
        product(feed_forward_activation(activation, before), w2, b2, outputs[begin:end])
    if weight_A is None:
        y = torch.zeros_like(outputs).index_copy_(0, order, outputs[: len(rows)])
        return y, hidden, outputs.new_empty(0)
    # Sums over the chosen experts in float32 at least.
    wide = torch.promote_types(dtype, torch.float32)
    y = x.new_zeros(len(x), outer.shape[1], dtype=wide)
    y.index_add_(0, rows, outputs[: len(rows)] * weight_A[order].to(wide).unsqueeze(1))
    return y.to(dtype), hidden, outputs if keep else outputs.new_empty(0)


@sorted_ffn.register_fake
def _(x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E, activation, dtype, keep):
    y = x.new_empty(row_A.shape[0] if weight_A is None else x.shape[0], outer.shape[1], dtype=dtype)
    hidden = x.new_empty(row_A.shape[0] if keep else 0, inner.shape[1], dtype=dtype)
    if weight_A is None or not keep:
        return y, hidden, x.new_empty(0, dtype=dtype)
    return y, hidden, x.new_empty(row_A.shape[0], outer.shape[1], dtype=dtype)


@torch.library.custom_op("moebius::sorted_ffn_backward", mutates_args=())
def sorted_ffn_backward(
    gradient: Tensor,
    hidden: Tensor,
    outputs: Tensor,
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    row_A: Tensor,
    weight_A: Tensor | None,
    order_A: Tensor,
    counts_E: Tensor,
    activation: str,
    dtype: torch.dtype,
    of_rows: bool,
    of_experts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, the weights and biases, and the router's weights; of no use where not asked for."""
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    rows = row_A[order]
    wide = torch.promote_types(dtype, torch.float32)
    gathered = x.index_select(0, rows).to(dtype)
    dy = gradient.index_select(0, order if weight_A is None else rows).to(dtype)
    dweight_A = x.new_zeros(0 if weight_A is None else len(row_A), dtype=wide)
    if weight_A is not None:
        dweight_A.index_copy_(0, order, (dy * outputs[: len(rows)]).sum(-1, dtype=wide))
        dy = dy * weight_A[order].to(dtype).unsqueeze(1)
    dx = torch.empty_like(gathered)
    dinner, douter = torch.empty_like(inner), torch.empty_like(outer)
    dinner_bias = x.new_zeros(0) if inner_bias is None else torch.zeros_like(inner_bias)
    douter_bias = x.new_zeros(0)
    if outer_bias is not None:
        expert = torch.repeat_interleave(counts_E, output_size=len(rows))
        douter_bias = outer_bias.new_zeros(outer_bias.shape, dtype=wide).index_add_(0, expert, dy.to(wide))
    inner_E, outer_E, dinner_E, douter_E = inner.unbind(), outer.unbind(), dinner.unbind(), douter.unbind()
    for idle, count in enumerate(counts):
        if count == 0 or not of_experts:
            dinner_E[idle].zero_()
            douter_E[idle].zero_()
    ones = dy.new_ones(1, ROWS)
    current, w1, w2 = -1, inner, outer
    for expert, begin, end in _pieces(counts):
        first = expert != current
        if first:
            current, w1, w2 = expert, inner_E[expert].to(dtype).t(), outer_E[expert].to(dtype).t()
        piece, before = dy[begin:end], hidden[begin:end]
        dbefore = feed_forward_activation_backward(activation, before, product(piece, w2))
        if of_rows:
            product(dbefore, w1, None, dx[begin:end])
        if not of_experts:
            continue
        _add_product(douter_E[expert], piece, feed_forward_activation(activation, before), first)
        _add_product(dinner_E[expert], dbefore, gathered[begin:end], first)
        if inner_bias is not None:
            # A product with ones: torch's own sums over rows take several times as long.
            dinner_bias[expert] += torch.mm(ones[:, : end - begin], dbefore).squeeze(0)
    whole = x.new_zeros(x.shape, dtype=wide)
    if of_rows:
        whole.index_add_(0, rows, dx.to(wide))
    if outer_bias is not None:
        douter_bias = douter_bias.to(outer_bias.dtype)
    dx = whole.to(x.dtype)
    return dx, dinner, dinner_bias, douter, douter_bias, dweight_A if weight_A is None else dweight_A.to(weight_A.dtype)


def _add_product(into: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
    """leftᵀ right, written or added."""
    if into.dtype == left.dtype:
        torch.mm(left.t(), right, out=into) if first else into.addmm_(left.t(), right)
    elif first:
        into.copy_(torch.mm(left.t(), right))
    else:
        into.add_(torch.mm(left.t(), right))


@sorted_ffn_backward.register_fake
def _(
    gradient,
    hidden,
    outputs,
    x,
    inner,
    inner_bias,
    outer,
    outer_bias,
    row_A,
    weight_A,
    order_A,
    counts_E,
    activation,
    dtype,
    of_rows,
    of_experts,
):
    biases = [x.new_empty(0) if bias is None else torch.empty_like(bias) for bias in (inner_bias, outer_bias)]
    none = x.new_empty(0, dtype=torch.promote_types(dtype, torch.float32))
    dweight = none if weight_A is None else torch.empty_like(weight_A)
    return torch.empty_like(x), torch.empty_like(inner), biases[0], torch.empty_like(outer), biases[1], dweight


def _setup(ctx, inputs, output):
    *tensors, ctx.activation, ctx.dtype, _ = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 12
    hidden, outputs, *tensors = ctx.saved_tensors
    if needs_second_backward(gradient):
        return _differentiable(ctx, gradient, *tensors)
    wanted = (ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5]))
    made = sorted_ffn_backward(gradient, hidden, outputs, *tensors, ctx.activation, ctx.dtype, *wanted)
    dx, dinner, dinner_bias, douter, douter_bias, dweight = made
    _, _, inner_bias, _, outer_bias, _, weight_A, _, _ = tensors
    biases = (dinner_bias if inner_bias is not None else None, douter_bias if outer_bias is not None else None)
    return dx, dinner, biases[0], douter, biases[1], None, None if weight_A is None else dweight, *(None,) * 5


def _differentiable(ctx, gradient, x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E):
    """The gradients in operations that have gradients themselves."""
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    readable = partial(readable_ffn, order, row_A[order], counts, ctx.activation, ctx.dtype, len(row_A))
    wanted = [*ctx.needs_input_grad[:5], weight_A is not None and ctx.needs_input_grad[6]]
    inputs = (x, inner, inner_bias, outer, outer_bias, weight_A)
    *found, dweight = readable_gradients(readable, gradient, wanted, *inputs)
    return *found, None, dweight, *(None,) * 5


sorted_ffn.register_autograd(_backward, setup_context=_setup)


# torch's counter of operations takes operators that it does not know for nothing.
@register_flop_formula(torch.ops.moebius.sorted_ffn, get_raw=True)
def _operations(x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E, *rest, **_):
    return 2 * int(counts_E.sum()) * (inner[0].numel() + outer[0].numel())


@register_flop_formula(torch.ops.moebius.sorted_ffn_backward, get_raw=True)
def _operations_backward(gradient, hidden, outputs, *given, **_):
    return 2 * _operations(*given)
