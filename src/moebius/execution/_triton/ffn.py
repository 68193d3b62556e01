"""The entry: what a mixture of feed-forward experts gives, and when it can be had this way."""

import importlib.util
import os

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Selection
from moebius.execution._triton.tile_order import order_tiles
from moebius.kit.errors import ArgumentError
from moebius.networks.feed_forward import FEED_FORWARD, GATED

_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton itself reads this once, when it is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def fused_ffn(
    x: Float[Tensor, "T D"],
    inner: Float[Tensor, "E MH D"],
    inner_bias: Float[Tensor, "E MH"] | None,
    outer: Float[Tensor, "E D H"],
    outer_bias: Float[Tensor, "E D"] | None,
    activation: str,
    selection: Selection,
) -> Float[Tensor, "T D"]:
    """The weighted sum of what the chosen feed-forward experts say of each row.

    y_t = Σ_{a: row_a = t, kept} weight_a (W_2 act(W_1 x_t + b_1) + b_2), with the matrices of expert_a

    Rows are gathered, and results put where they belong, inside the matrix products. For the backward, rows, weights
    and W_1 x + b_1 are kept, neither gathered rows nor outputs: a weight's gradient ⟨dy, W_2 a + b_2⟩ is
    ⟨W_2ᵀ dy, a⟩ + ⟨dy, b_2⟩, and W_2ᵀ dy is needed anyway. Sums are taken in float32 and, for given tile sizes, always
    in the same order: no two programs add to one place. Where there is much to do, tile sizes are measured once for
    each shape and kept on disk.

    Arguments:
        x: T rows.
        inner: first matrices, M·H wide: for swiglu and geglu M = 2, W_g above W_u, else 1.
        inner_bias: their biases.
        outer: second matrices.
        outer_bias: their biases.
        activation: gelu, relu2, swiglu or geglu, as `experts.FFN` has them.
        selection: which expert sees which row; assignments in any order, any number per row.

    Shapes: x (T, D) → (T, D), of the type of x.

    Raises:
        ArgumentError: `obstacle` gives a reason, or the activation or a shape does not fit.

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation (indices are padded,
    tensors are not); Guo et al. 2025, SonicMoE (what the backward keeps, and the weights' gradient). Here rows are
    gathered for the matrices' gradients, too, where each tile is summed by one program.
    """
    # Defining an operator imports a good part of torch's compiler.
    from moebius.execution._triton import operators

    why = obstacle(x, inner, inner_bias, outer, outer_bias)
    if why is not None:
        raise ArgumentError("execution", f"fused {why}", "fused", 'execution="loop"')
    if activation not in FEED_FORWARD:
        raise ArgumentError("activation", f"needs one of {', '.join(FEED_FORWARD)}", activation, "activation: gelu")
    experts, features, hidden = outer.shape
    matrices = 2 if activation in GATED else 1
    if inner.shape != (experts, matrices * hidden, features) or x.shape[1] != features:
        shapes = [tuple(part.shape) for part in (x, inner, outer)]
        raise ArgumentError("inner", f"{activation} needs (T, D), (E, {matrices}·H, D) and (E, D, H)", shapes)
    block = _rows_per_tile(len(selection.row_A), experts, x.dtype)
    plan = order_tiles(selection, len(x), experts, block)
    parts = (x, inner, inner_bias, outer, outer_bias, selection.weight_A)
    keep = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
    return operators.forward(*parts, plan.tensors, block, activation, keep)[0]


def obstacle(x: Tensor, *weights: Tensor | None) -> str | None:
    """Why these rows and weights cannot run here, as the end of a sentence; None when they can."""
    if not _INSTALLED:
        return "needs Triton, which is not installed"
    if not (_INTERPRETED or x.is_cuda):
        return "needs a GPU"
    if x.dtype not in _TYPES:
        return f"needs float32, bfloat16 or float16, not {str(x.dtype).removeprefix('torch.')}"
    there = [weight for weight in weights if weight is not None]
    if any(weight.dtype != x.dtype for weight in there):
        return "needs rows and experts of one type"
    if any(weight.device != x.device for weight in there):
        return "needs rows and experts on one device"
    if x.is_cuda and torch.version.hip is None and torch.cuda.get_device_properties(x.device).major < 8:
        return "needs a GPU of compute capability 8.0 or above"
    return None


def _rows_per_tile(assignments: int, experts: int, dtype: torch.dtype) -> int:
    """Few where most of a tile would be empty: where experts have few rows on average."""
    if _INTERPRETED:
        return 16
    if assignments >= 96 * experts and dtype != torch.float32:
        return 128
    return 64 if assignments >= 32 * experts else 16
