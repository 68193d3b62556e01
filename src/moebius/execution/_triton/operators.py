"""Forward and backward as operators of PyTorch, which compilers treat as opaque; Triton is imported at first use."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from moebius.core.transforms import needs_second_backward
from moebius.execution._readable import readable_ffn, readable_gradients
from moebius.execution._triton.tile_order import TileOrder


@torch.library.custom_op("moebius::ffn_forward", mutates_args=())
def forward(
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    weight_A: Tensor,
    plan: list[Tensor],
    block: int,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and h = W_1 x + b_1 in the plan's order of places, (P, M·H); h has no rows unless `keep`."""
    from moebius.execution._triton import launch

    return launch.forward(x, inner, inner_bias, outer, outer_bias, weight_A, TileOrder(*plan), block, activation, keep)


@torch.library.custom_op("moebius::ffn_backward", mutates_args=())
def backward(
    dy: Tensor,
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    weight_A: Tensor,
    h: Tensor,
    plan: list[Tensor],
    block: int,
    activation: str,
    needs_x: bool,
    needs_experts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of matrices and biases, and of the router weights; without elements if not needed or of None."""
    from moebius.execution._triton import launch

    experts = (inner, inner_bias, outer, outer_bias)
    return launch.backward(dy, x, *experts, weight_A, h, TileOrder(*plan), block, activation, needs_x, needs_experts)


@forward.register_fake
def _(x: Tensor, inner: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    weight_A, keep = rest[3], rest[-1]
    return x.new_empty(x.shape), x.new_empty(weight_A.shape[0] if keep else 0, inner.shape[1])


@backward.register_fake
def _(dy: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *experts, weight_A = rest[:5]
    needs_x, needs_experts = rest[-2:]
    return (
        x.new_empty(x.shape if needs_x else 0),
        *(x.new_empty(0 if tensor is None or not needs_experts else tensor.shape) for tensor in experts),
        weight_A.new_empty(weight_A.shape),
    )


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, plan, ctx.block, ctx.activation, _ = inputs
    ctx.save_for_backward(*tensors, output[1], *plan)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    *tensors, h = ctx.saved_tensors[:7]
    plan = list(ctx.saved_tensors[7:])
    no_gradients = ([None] * len(plan), None, None, None)  # of plan, block, activation and keep
    if dy is None:
        return None, None, None, None, None, None, *no_gradients
    if needs_second_backward(dy):
        return *_readable_backward(ctx, dy, TileOrder(*plan), tensors), *no_gradients
    needs_x, *needs_experts, _ = ctx.needs_input_grad[:6]
    options = (ctx.block, ctx.activation, needs_x, any(needs_experts))
    gradients = backward(dy, *tensors, h, plan, *options)
    triples = zip(gradients, tensors, ctx.needs_input_grad[:6], strict=True)
    return *(gradient if x is not None and needs else None for gradient, x, needs in triples), *no_gradients


def _readable_backward(ctx: Any, dy: Tensor, plan: TileOrder, tensors: list[Tensor]) -> list[Tensor | None]:
    """The gradients by operations that torch differentiates."""
    counts = plan.place_E.diff().tolist()
    order, rows = plan.order_P[: sum(counts)].long(), plan.row_P[: sum(counts)].long()
    function = partial(readable_ffn, order, rows, counts, ctx.activation, tensors[0].dtype, len(plan.order_P))
    return readable_gradients(function, dy, ctx.needs_input_grad[:6], *tensors)


forward.register_autograd(_backward, setup_context=_save_inputs)
