"""A whole number that names a row: for routers that choose by what the row is, not by what a gate says of it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.row_context import RowContext
from moebius.kit.errors import ArgumentError
from moebius.kit.hashing import mix_bits

CONTEXT = "key"


def row_keys(x: Float[Tensor, "T ..."], frame: RowContext) -> Int[Tensor, " T"]:
    """The rows' keys: `context["key"]` (T,) where it is given (token or user ids), else a number made of their content.

    Raises:
        ArgumentError: the context's keys are no whole numbers, or not one per row.
    """
    keys = frame.local().get(CONTEXT)
    if keys is None:
        return content_keys(x)
    if keys.shape != x.shape[:1] or keys.is_floating_point() or keys.dtype == torch.bool:
        said = f"{keys.dtype} of shape {tuple(keys.shape)}"
        raise ArgumentError(f"context[{CONTEXT!r}]", f"needs one whole number for each of {len(x)} rows", said)
    return keys.long()


def content_keys(x: Float[Tensor, "T ..."]) -> Int[Tensor, " T"]:
    """A number for each row that depends on nothing but its values: equal rows have equal keys, on any machine.

    Values are taken in steps of 2⁻¹⁶, so that a number format or a rounding error does not rename a row of pixels.

    Example:
        >>> content_keys(torch.tensor([[0.5, 1.0], [1.0, 0.5], [0.5, 1.0]])).unique().numel()
        2
    """
    whole = (x.detach().flatten(1).double() * 2**16).round().long()
    # An odd factor for each place, from a multiplicative sequence: sums in whole numbers wrap round, in any order.
    place = torch.arange(1, whole.shape[1] + 1, device=x.device)
    return (mix_bits(whole + 1) * (2 * mix_bits(place) + 1)).sum(1)
