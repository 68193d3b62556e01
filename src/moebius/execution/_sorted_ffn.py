"""Feed-forward experts on sorted rows: two operators that compilers do not look into.

A block of rows is small enough to stay in the processor's cache between the first and the second product, forward and
backward. The gradient of each expert's weights is written directly into its slice of the stacked gradient.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from moebius.core.transforms import needs_second_backward
from moebius.execution._ffn import FFNWeights
from moebius.execution._readable import readable_ffn, readable_gradients
from moebius.execution._segments.by_row import ByRow
from moebius.execution._segments.contract import Gradients, Layout
from moebius.execution._segments.padded import Padded
from moebius.execution._weighted_rows import sum_by_row


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
    padded: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and for the backward pass the outputs of the experts' first layers and of the experts.

    With weights the result is the weighted sum of each row's outputs, (T, D); without, the output of each assignment,
    (A, D), zero where it was not kept. `padded` is whether experts are batched (`Padded`), `keep` whether the backward
    pass will need the other two.
    """
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    rows = row_A[order]
    layout = _make_layout(padded, counts, inner)
    gathered = x.index_select(0, layout.lay_out(rows)).to(dtype)
    capacity = layout.capacity(len(row_A), len(counts))
    outputs = gathered.new_empty(capacity, outer.shape[1])
    hidden = gathered.new_empty(capacity if keep else 0, inner.shape[1])
    weights = FFNWeights(inner, inner_bias, outer, outer_bias, activation, dtype)
    layout.forward(weights, gathered, hidden if keep else None, outputs)
    if weight_A is None:
        y = outputs.new_zeros(len(row_A), outputs.shape[1])
        return y.index_copy_(0, order, layout.take_rows(outputs, len(rows))), hidden, outputs.new_empty(0)
    y = sum_by_row(outputs, rows, weight_A[order], len(x), layout.place_A)
    return y, hidden, outputs if keep else outputs.new_empty(0)


def _make_layout(padded: bool, counts: Sequence[int], inner: Tensor) -> Layout:
    return Padded(counts, inner.shape[1], inner.device) if padded else ByRow(counts)


@sorted_ffn.register_fake
def _(x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E, activation, dtype, padded, keep):
    y = x.new_empty(row_A.shape[0] if weight_A is None else x.shape[0], outer.shape[1], dtype=dtype)
    capacity = (Padded if padded else ByRow).capacity(row_A.shape[0], inner.shape[0])
    hidden = x.new_empty(capacity if keep else 0, inner.shape[1], dtype=dtype)
    if weight_A is None or not keep:
        return y, hidden, x.new_empty(0, dtype=dtype)
    return y, hidden, x.new_empty(capacity, outer.shape[1], dtype=dtype)


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
    padded: bool,
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
    layout = _make_layout(padded, counts, inner)
    laid_rows = layout.lay_out(rows)
    sum_dtype = torch.promote_types(dtype, torch.float32)
    gathered = x.index_select(0, laid_rows).to(dtype)
    upstream = gradient.index_select(0, layout.lay_out(order) if weight_A is None else laid_rows).to(dtype)
    dweight_A = x.new_zeros(0 if weight_A is None else len(row_A), dtype=sum_dtype)
    if weight_A is not None:
        products = (upstream * outputs[: len(upstream)]).sum(-1, dtype=sum_dtype)
        dweight_A.index_copy_(0, order, layout.take_rows(products, len(rows)))
    if weight_A is not None or layout.source_P is not None:
        factors = upstream.new_ones(len(rows)) if weight_A is None else weight_A[order].to(dtype)
        upstream = upstream * layout.clear_padding(layout.lay_out(factors)).unsqueeze(1)
    dinner, douter = torch.empty_like(inner), torch.empty_like(outer)
    dinner_bias = x.new_zeros(0) if inner_bias is None else torch.zeros_like(inner_bias)
    douter_bias = x.new_zeros(0)
    if outer_bias is not None and needs_experts:
        places_E = torch.tensor(layout.places_by_expert, device=x.device)
        expert_P = torch.repeat_interleave(places_E, output_size=len(upstream))
        sums = outer_bias.new_zeros(outer_bias.shape, dtype=sum_dtype)
        douter_bias = sums.index_add_(0, expert_P, upstream.to(sum_dtype)).to(outer_bias.dtype)
    gradients = Gradients(
        torch.empty_like(gathered) if needs_rows else None,
        dinner if needs_experts else None,
        dinner_bias if needs_experts and inner_bias is not None else None,
        douter if needs_experts else None,
    )
    weights = FFNWeights(inner, inner_bias, outer, outer_bias, activation, dtype)
    layout.backward(weights, gathered, hidden, upstream, gradients)
    if needs_experts:
        written = [tensor for tensor in (dinner, dinner_bias, douter, douter_bias) if len(tensor)]
        for expert, count in enumerate(counts):
            if count == 0:
                for tensor in written:
                    tensor[expert].zero_()
    if gradients.rows is None:
        dx = torch.empty_like(x)
    else:
        dx = sum_by_row(gradients.rows, rows, None, len(x), layout.place_A).to(x.dtype)
    return dx, dinner, dinner_bias, douter, douter_bias, dweight_A if weight_A is None else dweight_A.to(weight_A.dtype)


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
    padded,
    needs_rows,
    needs_experts,
):
    biases = [x.new_empty(0) if bias is None else torch.empty_like(bias) for bias in (inner_bias, outer_bias)]
    empty = x.new_empty(0, dtype=torch.promote_types(dtype, torch.float32))
    dweight = empty if weight_A is None else torch.empty_like(weight_A)
    return torch.empty_like(x), torch.empty_like(inner), biases[0], torch.empty_like(outer), biases[1], dweight


def _save_inputs(ctx, inputs, output):
    *tensors, ctx.activation, ctx.dtype, ctx.padded, _ = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 13
    hidden, outputs, *tensors = ctx.saved_tensors
    if needs_second_backward(gradient):
        return _readable_backward(ctx, gradient, *tensors)
    needs = (ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5]))
    gradients = sorted_ffn_backward(gradient, hidden, outputs, *tensors, ctx.activation, ctx.dtype, ctx.padded, *needs)
    dx, dinner, dinner_bias, douter, douter_bias, dweight = gradients
    _, _, inner_bias, _, outer_bias, _, weight_A, _, _ = tensors
    biases = (dinner_bias if inner_bias is not None else None, douter_bias if outer_bias is not None else None)
    return dx, dinner, biases[0], douter, biases[1], None, None if weight_A is None else dweight, *(None,) * 6


def _readable_backward(ctx, gradient, x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E):
    """The gradients by operations that torch differentiates."""
    counts = counts_E.tolist()
    order = order_A[: sum(counts)]
    function = partial(readable_ffn, order, row_A[order], counts, ctx.activation, ctx.dtype, len(row_A))
    needs = [*ctx.needs_input_grad[:5], weight_A is not None and ctx.needs_input_grad[6]]
    inputs = (x, inner, inner_bias, outer, outer_bias, weight_A)
    *gradients, dweight = readable_gradients(function, gradient, needs, *inputs)
    return *gradients, None, dweight, *(None,) * 6


sorted_ffn.register_autograd(_backward, setup_context=_save_inputs)


# torch's counter of operations counts an operator without a formula as 0.
@register_flop_formula(torch.ops.moebius.sorted_ffn, get_raw=True)
def _count_operations(x, inner, inner_bias, outer, outer_bias, row_A, weight_A, order_A, counts_E, *rest, **_):
    return 2 * int(counts_E.sum()) * (inner[0].numel() + outer[0].numel())


@register_flop_formula(torch.ops.moebius.sorted_ffn_backward, get_raw=True)
def _count_backward_operations(gradient, hidden, outputs, *inputs, **_):
    return 2 * _count_operations(*inputs)
