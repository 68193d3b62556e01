"""The forward and the backward as operators of PyTorch, into which compilers do not look. Triton loads at first use."""

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
    """The output, and h = W_1 x + b_1 at the plan's places, without rows where it is not to be kept."""
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
    wants_x: bool,
    wants_experts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, both matrices and biases, and the weights; those not wanted or not there are without elements."""
    from moebius.execution._triton import launch

    experts = (inner, inner_bias, outer, outer_bias)
    return launch.backward(dy, x, *experts, weight_A, h, TileOrder(*plan), block, activation, wants_x, wants_experts)


@forward.register_fake
def _(x: Tensor, inner: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    weight_A, keep = rest[3], rest[-1]
    return x.new_empty(x.shape), x.new_empty(weight_A.shape[0] if keep else 0, inner.shape[1])


@backward.register_fake
def _(dy: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *experts, weight_A = rest[:5]
    wants_x, wants_experts = rest[-2:]
    return (
        x.new_empty(x.shape if wants_x else 0),
        *(x.new_empty(0 if part is None or not wants_experts else part.shape) for part in experts),
        weight_A.new_empty(weight_A.shape),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *parts, plan, ctx.block, ctx.activation, _ = inputs
    ctx.save_for_backward(*parts, output[1], *plan)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    *parts, h = ctx.saved_tensors[:7]
    plan = list(ctx.saved_tensors[7:])
    nothing = ([None] * len(plan), None, None, None)
    if dy is None:
        return None, None, None, None, None, None, *nothing
    if needs_second_backward(dy):
        return *_differentiable(ctx, dy, TileOrder(*plan), parts), *nothing
    wants_x, *wants_experts, _ = ctx.needs_input_grad[:6]
    options = (ctx.block, ctx.activation, wants_x, any(wants_experts))
    gradients = backward(dy, *parts, h, plan, *options)
    wanted = zip(gradients, parts, ctx.needs_input_grad[:6], strict=True)
    return *(gradient if part is not None and wants else None for gradient, part, wants in wanted), *nothing


def _differentiable(ctx: Any, dy: Tensor, plan: TileOrder, parts: list[Tensor]) -> list[Tensor | None]:
    """The gradients in operations that have gradients themselves."""
    counts = plan.place_E.diff().tolist()
    order, rows = plan.order_P[: sum(counts)].long(), plan.row_P[: sum(counts)].long()
    readable = partial(readable_ffn, order, rows, counts, ctx.activation, parts[0].dtype, len(plan.order_P))
    return readable_gradients(readable, dy, ctx.needs_input_grad[:6], *parts)


forward.register_autograd(_differentiate, setup_context=_remember)
