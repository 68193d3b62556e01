"""Launches the kernels of the forward and the backward pass in order."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from moebius.execution._triton import gradients, products
from moebius.execution._triton.tile_order import TileOrder
from moebius.execution._triton.tiles import COMPILING, INTERPRETED, launcher
from moebius.networks.feed_forward import GATED

# The gradient of a router weight is summed for this number of columns at a time: every tile has at least as many.
_PART = 16 if INTERPRETED else 64


def forward(
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    weight_A: Tensor,
    plan: TileOrder,
    block: int,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and h = W_1 x + b_1 in the plan's order of places, (P, M·H); h has no rows unless `keep`."""
    count, (_, features, hidden) = len(weight_A), outer.shape
    h = x.new_empty(count if keep else 0, inner.shape[1])
    if count == 0:
        return x.new_zeros(x.shape), h
    x, inner, outer = x.contiguous(), inner.contiguous(), outer.contiguous()
    with _device_of(x):
        a = x.new_empty(count, hidden)
        arguments = (
            x,
            inner,
            _contiguous(inner_bias),
            h,
            a,
            plan.row_P,
            plan.tile_N,
            len(plan.tile_N),
            features,
            hidden,
        )
        options = {"GATED": activation in GATED, "BIAS": inner_bias is not None, "KEEP": keep}
        _launch_product("up", arguments, plan, block, hidden, features, ACTIVATION=activation, **options)
        values = _multiply_down(a, outer, outer_bias, _weights_by_place(weight_A, plan), plan, block, transposed=False)
        del a
        return _sum_by_row(values, plan.slot_T), h


def backward(
    dy: Tensor,
    x: Tensor,
    inner: Tensor,
    inner_bias: Tensor | None,
    outer: Tensor,
    outer_bias: Tensor | None,
    weight_A: Tensor,
    h: Tensor,
    plan: TileOrder,
    block: int,
    activation: str,
    needs_x: bool,
    needs_experts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of matrices and biases, and of the router weights; without elements if not needed or of None."""
    count, (_, features, hidden) = len(weight_A), outer.shape
    experts = (inner, inner_bias, outer, outer_bias)
    dx = x.new_zeros(x.shape if needs_x else 0)
    d_inner, d_inner_bias, d_outer, d_outer_bias = (
        x.new_zeros(0 if tensor is None or not needs_experts or count else tensor.shape) for tensor in experts
    )
    if count == 0:
        return dx, d_inner, d_inner_bias, d_outer, d_outer_bias, torch.zeros_like(weight_A)
    dy, x, inner, outer = dy.contiguous(), x.contiguous(), inner.contiguous(), outer.contiguous()
    with _device_of(x):
        weight_P = _weights_by_place(weight_A, plan)
        parts = triton.cdiv(hidden, _PART) + (outer_bias is not None)
        # No tile holds dropped assignments: their gradient stays 0.
        part_A = torch.zeros(count, parts, device=x.device)
        dh, weighted = torch.empty_like(h), x.new_empty(count, hidden)
        places = (plan.row_P, plan.order_P, plan.tile_N)
        arguments = (dy, outer, h, weight_P, dh, weighted, part_A, *places, len(plan.tile_N), parts, features, hidden)
        options = {"GATED": activation in GATED, "PART": _PART}
        _launch_product("down_backward", arguments, plan, block, hidden, features, ACTIVATION=activation, **options)
        if outer_bias is not None:
            arguments = (dy, outer_bias.contiguous(), part_A, *places, parts, features)
            sizes = {"BLOCK_M": block, "BLOCK_N": _PART, **COMPILING}
            gradients.bias_part[(len(plan.tile_N),)](*arguments, **sizes)
        if needs_experts:
            d_outer = _sum_outer_products(dy, weighted, plan, gather_left=True)
        del weighted
        if needs_experts:
            d_inner = _sum_outer_products(dh, x, plan, gather_left=False)
        if needs_experts and outer_bias is not None:
            d_outer_bias = _sum_by_expert(dy, weight_P, plan, weighted_rows=True)
        if needs_experts and inner_bias is not None:
            d_inner_bias = _sum_by_expert(dh, weight_P, plan, weighted_rows=False)
        if needs_x:
            dx = _sum_by_row(_multiply_down(dh, inner, None, weight_P, plan, block, transposed=True), plan.slot_T)
    return dx, d_inner, d_inner_bias, d_outer, d_outer_bias, part_A.sum(1).to(weight_A.dtype)


def _launch_product(
    name: str, arguments: tuple[Any, ...], plan: TileOrder, block: int, columns: int, depth: int, **options: Any
) -> None:
    """Launch a kernel that multiplies the row of each place by its expert's matrix."""
    work = len(plan.row_P) * columns * depth
    kernel, sizes = launcher(name, options.get("GATED", False), arguments[0].dtype, work)
    tiles = len(plan.tile_N)
    kernel[lambda sizes: (tiles * triton.cdiv(columns, sizes["BLOCK_N"]),)](
        *arguments, BLOCK_M=block, **options, **sizes
    )


def _multiply_down(
    left: Tensor, right: Tensor, bias: Tensor | None, weight_P: Tensor, plan: TileOrder, block: int, transposed: bool
) -> Tensor:
    """weight (W l + b), or Wᵀ l where `transposed`, in the order of slots: (P, columns)."""
    depth, columns = left.shape[1], right.shape[2] if transposed else right.shape[1]
    out = left.new_empty(len(left), columns)
    places = (plan.slot_P, plan.tile_N, len(plan.tile_N))
    arguments = (left, right, _contiguous(bias), weight_P, out, *places, columns, depth)
    options = {"TRANSPOSED": transposed, "BIAS": bias is not None, "WEIGHTED": not transposed}
    _launch_product("down", arguments, plan, block, columns, depth, **options)
    return out


def _sum_outer_products(left: Tensor, right: Tensor, plan: TileOrder, gather_left: bool) -> Tensor:
    """Σ l rᵀ over the places of each expert: the gradient of its matrix."""
    experts, height, width = len(plan.place_E) - 1, left.shape[1], right.shape[1]
    out = left.new_empty(experts, height, width)
    kernel, sizes = launcher("outer_product", False, left.dtype, len(plan.row_P) * height * width)
    kernel[lambda sizes: (experts * triton.cdiv(height, sizes["BLOCK_M"]) * triton.cdiv(width, sizes["BLOCK_N"]),)](
        left, right, out, plan.row_P, plan.place_E, height, width, GATHER_LEFT=gather_left, **sizes
    )
    return out


def _sum_by_expert(values: Tensor, weight_P: Tensor, plan: TileOrder, weighted_rows: bool) -> Tensor:
    """Σ over the places of each expert, weighted where `weighted_rows`: the gradient of its bias."""
    experts, columns = len(plan.place_E) - 1, values.shape[1]
    out = values.new_empty(experts, columns)
    gradients.expert_sum[(experts, triton.cdiv(columns, _PART))](
        *(values, weight_P, out, plan.row_P, plan.place_E, columns),
        **{"WEIGHTED_ROWS": weighted_rows, "BLOCK_M": _PART, "BLOCK_N": _PART, **COMPILING},
    )
    return out


def _sum_by_row(values: Tensor, slot_T: Tensor) -> Tensor:
    """Σ over the slots of each row, (T, columns)."""
    rows, columns = len(slot_T) - 1, values.shape[1]
    out = values.new_empty(rows, columns)
    block = min(triton.next_power_of_2(columns), 2048)
    sizes = {"BLOCK_N": block, **COMPILING}
    products.row_sum[(rows, triton.cdiv(columns, block))](values, out, slot_T, columns, **sizes)
    return out


def _weights_by_place(weight_A: Tensor, plan: TileOrder) -> Tensor:
    """The router weights in the plan's order of places, in float32."""
    return weight_A.float()[plan.order_P]


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _device_of(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which the device of x is current: Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
