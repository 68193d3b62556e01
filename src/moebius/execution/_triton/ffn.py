"""The public function: the weighted sum of a mixture of feed-forward experts, and when the kernels can compute it."""

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
# Triton reads this variable once, when it is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fused_ffn(
    x: Float[Tensor, "T D"],
    inner: Float[Tensor, "E MH D"],
    inner_bias: Float[Tensor, "E MH"] | None,
    outer: Float[Tensor, "E D H"],
    outer_bias: Float[Tensor, "E D"] | None,
    activation: str,
    selection: Selection,
) -> Float[Tensor, "T D"]:
    """The weighted sum of the outputs of each row's feed-forward experts.

    y_t = Σ_{a: row_a = t, kept} weight_a (W_2 act(W_1 x_t + b_1) + b_2), with the matrices of expert_a

    The matrix products gather their rows and scatter their results themselves. For the backward pass rows, weights and
    W_1 x + b_1 are kept, but neither gathered rows nor outputs: the gradient of a router weight, ⟨dy, W_2 a + b_2⟩, is
    ⟨W_2ᵀ dy, a⟩ + ⟨dy, b_2⟩, and W_2ᵀ dy is needed anyway. Sums are in float32 and, for fixed tile sizes, always in the
    same order: no two programs add to the same element. For large products the tile sizes are measured once for each
    shape and stored on disk.

    Arguments:
        x: T rows.
        inner: matrices of the first layers, with M·H rows: for swiglu and geglu M = 2, W_g above W_u, else 1.
        inner_bias: biases of the first layers.
        outer: matrices of the second layers.
        outer_bias: biases of the second layers.
        activation: gelu, relu2, swiglu or geglu, as in `experts.FFN`.
        selection: the assignments of rows to experts, in any order, any number of them for a row.

    Shapes: x (T, D) → (T, D), of the type of x.

    Raises:
        ArgumentError: `obstacle` gives a reason, or the activation or a shape does not fit.

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation (indices are padded,
    tensors are not); Guo et al. 2025, SonicMoE (what the backward keeps, and the weights' gradient). Here the products
    for the matrices' gradients gather rows as well, and a single program sums each of their tiles.
    """
    # Imported here: defining an operator imports much of torch's compiler.
    from moebius.execution._triton import operators

    reason = obstacle(x, inner, inner_bias, outer, outer_bias)
    if reason is not None:
        raise ArgumentError("execution", f"fused {reason}", "fused", 'execution="loop"')
    if activation not in FEED_FORWARD:
        raise ArgumentError("activation", f"needs one of {', '.join(FEED_FORWARD)}", activation, "activation: gelu")
    experts, features, hidden = outer.shape
    matrices = 2 if activation in GATED else 1
    if inner.shape != (experts, matrices * hidden, features) or x.shape[1] != features:
        shapes = [tuple(tensor.shape) for tensor in (x, inner, outer)]
        rule = f"{activation} needs rows (T, D), inner (E, {matrices}·H, D) and outer (E, D, H)"
        fix = f"x of {features} columns, inner of shape {(experts, matrices * hidden, features)}"
        raise ArgumentError("inner", rule, shapes, fix)
    block = _rows_per_tile(len(selection.row_A), experts, x.dtype)
    plan = order_tiles(selection, len(x), experts, block)
    tensors = (x, inner, inner_bias, outer, outer_bias, selection.weight_A)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return operators.forward(*tensors, plan.tensors, block, activation, keep)[0]


def obstacle(x: Tensor, *weights: Tensor | None) -> str | None:
    """Why the kernels cannot run on these rows and weights, as the end of a sentence; None when they can."""
    if not _INSTALLED:
        return "needs Triton, which is not installed"
    if not (_INTERPRETED or x.is_cuda):
        return "needs a GPU"
    if x.dtype not in _DTYPES:
        return f"needs float32, bfloat16 or float16, not {str(x.dtype).removeprefix('torch.')}"
    tensors = [weight for weight in weights if weight is not None]
    if any(tensor.dtype != x.dtype for tensor in tensors):
        return "needs rows and experts of one type"
    if any(tensor.device != x.device for tensor in tensors):
        return "needs rows and experts on one device"
    if x.is_cuda and torch.version.hip is None and torch.cuda.get_device_properties(x.device).major < 8:
        return "needs a GPU of compute capability 8.0 or above"
    return None


def _rows_per_tile(assignments: int, experts: int, dtype: torch.dtype) -> int:
    """Rows of a tile: few where experts have few rows on average, since most of a large tile would be empty."""
    if _INTERPRETED:
        return 16
    if assignments >= 96 * experts and dtype != torch.float32:
        return 128
    return 64 if assignments >= 32 * experts else 16
