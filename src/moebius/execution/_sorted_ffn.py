"""Feed-forward experts on sorted rows, one block of rows after another: two operators that compilers do not look into.

A block is small enough to stay in the processor's cache between the first and the second product, forward and backward.
The gradient of each expert's weights is written directly into its slice of the stacked gradient.
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

# Rows of a block: few enough that their hidden layer stays in the cache, many enough that the products run at full
# speed. Sizes between 512 and 4,096 made little difference in measurements, which docs/execution.md gives.
ROWS = 2048


def _split_into_blocks(counts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Expert, first row and end of every block of at most `ROWS` rows; rows are sorted by expert."""
    begin = 0
    for expert, count in enumerate(counts):
        blocks = -(-count // ROWS)
        for block in range(blocks):
            yield expert, begin + count * block // blocks, begin + count * (block + 1) // blocks
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
    """The result, and for the backward pass the outputs of the experts' first layers and of the experts.

    With weights the result is the weighted sum of each row's outputs, (T, D); without, the output of each assignment,
    (A, D), zero where it was not kept. `keep` is whether the backward pass will need the other two.
    """
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    rows = row_A[order]
    gathered = x.index_select(0, rows).to(dtype)
    outputs = gathered.new_empty(len(row_A), outer.shape[1])
    hidden = gathered.new_empty(len(row_A) if keep else 0, inner.shape[1])
    # unbind of all experts is faster than indexing one by one.
    inner_E, outer_E = inner.unbind(), outer.unbind()
    biases_E = [None if bias is None else bias.to(dtype).unbind() for bias in (inner_bias, outer_bias)]
    current_expert, w1, w2 = -1, inner, outer
    for expert, begin, end in _split_into_blocks(counts):
        if expert != current_expert:
            current_expert, w1, w2 = expert, inner_E[expert].to(dtype), outer_E[expert].to(dtype)
        b1, b2 = (None if bias_E is None else bias_E[expert] for bias_E in biases_E)
        preactivation = product(gathered[begin:end], w1, b1, hidden[begin:end] if keep else None)
        product(feed_forward_activation(activation, preactivation), w2, b2, outputs[begin:end])
    if weight_A is None:
        y = torch.zeros_like(outputs).index_copy_(0, order, outputs[: len(rows)])
        return y, hidden, outputs.new_empty(0)
    # The sums over a row's experts are in float32 at least.
    sum_dtype = torch.promote_types(dtype, torch.float32)
    y = x.new_zeros(len(x), outer.shape[1], dtype=sum_dtype)
    y.index_add_(0, rows, outputs[: len(rows)] * weight_A[order].to(sum_dtype).unsqueeze(1))
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
    needs_rows: bool,
    needs_experts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of both layers' weights and biases, and of the router's weights.

    `needs_rows` is whether the gradient of x is needed, `needs_experts` whether those of the experts are. Gradients
    that are not needed have the right shape and undefined values.
    """
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    rows = row_A[order]
    sum_dtype = torch.promote_types(dtype, torch.float32)
    gathered = x.index_select(0, rows).to(dtype)
    dy = gradient.index_select(0, order if weight_A is None else rows).to(dtype)
    dweight_A = x.new_zeros(0 if weight_A is None else len(row_A), dtype=sum_dtype)
    if weight_A is not None:
        dweight_A.index_copy_(0, order, (dy * outputs[: len(rows)]).sum(-1, dtype=sum_dtype))
        dy = dy * weight_A[order].to(dtype).unsqueeze(1)
    dx = torch.empty_like(gathered)
    dinner, douter = torch.empty_like(inner), torch.empty_like(outer)
    dinner_bias = x.new_zeros(0) if inner_bias is None else torch.zeros_like(inner_bias)
    douter_bias = x.new_zeros(0)
    if outer_bias is not None:
        expert_of_row = torch.repeat_interleave(counts_E, output_size=len(rows))
        douter_bias = outer_bias.new_zeros(outer_bias.shape, dtype=sum_dtype)
        douter_bias = douter_bias.index_add_(0, expert_of_row, dy.to(sum_dtype))
    inner_E, outer_E, dinner_E, douter_E = inner.unbind(), outer.unbind(), dinner.unbind(), douter.unbind()
    for expert, count in enumerate(counts):
        if count == 0 or not needs_experts:
            dinner_E[expert].zero_()
            douter_E[expert].zero_()
    ones = dy.new_ones(1, ROWS)
    current_expert, w1, w2 = -1, inner, outer
    for expert, begin, end in _split_into_blocks(counts):
        is_first = expert != current_expert
        if is_first:
            current_expert, w1, w2 = expert, inner_E[expert].to(dtype).t(), outer_E[expert].to(dtype).t()
        dy_block, preactivation = dy[begin:end], hidden[begin:end]
        dpreactivation = feed_forward_activation_backward(activation, preactivation, product(dy_block, w2))
        if needs_rows:
            product(dpreactivation, w1, None, dx[begin:end])
        if not needs_experts:
            continue
        _add_product(douter_E[expert], dy_block, feed_forward_activation(activation, preactivation), is_first)
        _add_product(dinner_E[expert], dpreactivation, gathered[begin:end], is_first)
        if inner_bias is not None:
            # The sum over rows as a product with ones: torch's sum takes several times as long.
            dinner_bias[expert] += torch.mm(ones[:, : end - begin], dpreactivation).squeeze(0)
    dx_T = x.new_zeros(x.shape, dtype=sum_dtype)
    if needs_rows:
        dx_T.index_add_(0, rows, dx.to(sum_dtype))
    if outer_bias is not None:
        douter_bias = douter_bias.to(outer_bias.dtype)
    dx = dx_T.to(x.dtype)
    return dx, dinner, dinner_bias, douter, douter_bias, dweight_A if weight_A is None else dweight_A.to(weight_A.dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor, is_first: bool) -> None:
    """Write leftᵀ right into `total` if it is the first product, else add it."""
    if total.dtype == left.dtype:
        torch.mm(left.t(), right, out=total) if is_first else total.addmm_(left.t(), right)
    elif is_first:
        total.copy_(torch.mm(left.t(), right))
    else:
        total.add_(torch.mm(left.t(), right))


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
    needs_rows,
    needs_experts,
):
    biases = [x.new_empty(0) if bias is None else torch.empty_like(bias) for bias in (inner_bias, outer_bias)]
    empty = x.new_empty(0, dtype=torch.promote_types(dtype, torch.float32))
    dweight = empty if weight_A is None else torch.empty_like(weight_A)
    return torch.empty_like(x), torch.empty_like(inner), biases[0], torch.empty_like(outer), biases[1], dweight


def _save_inputs(ctx, inputs, output):
    *tensors, ctx.activation, ctx.dtype, _ = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 12
    hidden, outputs, *tensors = ctx.saved_tensors
    if needs_second_backward(gradient):
        return _readable_backward(ctx, gradient, *tensors)
    needs = (ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5]))
    gradients = sorted_ffn_backward(gradient, hidden, outputs, *tensors, ctx.activation, ctx.dtype, *needs)
    dx, dinner, dinner_bias, douter, douter_bias, dweight = gradients
    _, _, inner_bias, _, outer_bias, _, weight_A, _, _ = tensors
    biases = (dinner_bias if inner_bias is not None else None, douter_bias if outer_bias is not None else None)
    return dx, dinner, biases[0], douter, biases[1], None, None if weight_A is None else dweight, *(None,) * 5


def _readable_backward(ctx, gradient, x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E):
    """The gradients by operations that torch differentiates."""
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    function = partial(readable_ffn, order, row_A[order], counts, ctx.activation, ctx.dtype, len(row_A))
    needs = [*ctx.needs_input_grad[:5], weight_A is not None and ctx.needs_input_grad[6]]
    inputs = (x, inner, inner_bias, outer, outer_bias, weight_A)
    *gradients, dweight = readable_gradients(function, gradient, needs, *inputs)
    return *gradients, None, dweight, *(None,) * 5


sorted_ffn.register_autograd(_backward, setup_context=_save_inputs)


# torch's counter of operations counts an operator without a formula as 0.
@register_flop_formula(torch.ops.moebius.sorted_ffn, get_raw=True)
def _count_operations(x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E, *rest, **_):
    return 2 * int(counts_E.sum()) * (inner[0].numel() + outer[0].numel())


@register_flop_formula(torch.ops.moebius.sorted_ffn_backward, get_raw=True)
def _count_backward_operations(gradient, hidden, outputs, *inputs, **_):
    return 2 * _count_operations(*inputs)
