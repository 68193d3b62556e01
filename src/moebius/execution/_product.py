"""x Wᵀ + b, computed by the fastest library for this processor."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.processor import multiplies_in_tiles


def product(
    x: Float[Tensor, "A D"],
    weight: Float[Tensor, "C D"],
    bias: Float[Tensor, " C"] | None = None,
    out: Float[Tensor, "A C"] | None = None,
) -> Float[Tensor, "A C"]:
    """The output of a dense layer, x Wᵀ + b, without gradients.

    torch computes float32 products by MKL. On AMD processors MKL reaches about three quarters of oneDNN's speed where
    the weights are not in the cache yet; on an Intel Xeon with AMX the two are level, and MKL writes to `out` directly.
    For lower precision torch uses oneDNN itself.

    Arguments:
        x: A rows.
        weight: W.
        bias: b; None for none.
        out: where the result is written; None for a new tensor.

    Example:
        >>> product(torch.ones(1, 2), torch.ones(3, 2))
        tensor([[2., 2., 2.]])
    """
    if x.dtype == torch.float32 and not x.is_cuda and len(x) and _prefers_onednn():
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y if out is None else out.copy_(y)
    if bias is None:
        return torch.mm(x, weight.t(), out=out)  # type: ignore[call-overload]
    return torch.addmm(bias, x, weight.t(), out=out)  # type: ignore[call-overload]


@functools.cache
def _prefers_onednn() -> bool:
    """Whether oneDNN's dense layer is faster here, and torch has it: a private operator that torch's compiler uses."""
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_onednn and not multiplies_in_tiles()
