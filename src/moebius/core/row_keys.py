"""A key for each row, for routers that choose experts by the row itself and not by a gate's scores for it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.row_context import RowContext
from moebius.kit.errors import ArgumentError
from moebius.kit.hashing import mix_bits

# The name of the keys among the values of `with mb.context(…)`.
KEY_NAME = "key"


def row_keys(x: Float[Tensor, "T ..."], context: RowContext) -> Int[Tensor, " T"]:
    """The rows' keys: `context["key"]` (T,) where it is set (token or user ids), else hashes of the rows' content.

    Raises:
        ArgumentError: the context's keys are no whole numbers, or not one for each row.
    """
    keys = context.local_values().get(KEY_NAME)
    if keys is None:
        return content_keys(x)
    if keys.shape != x.shape[:1] or keys.is_floating_point() or keys.dtype == torch.bool:
        rule = f"needs one whole number for each of {len(x)} rows"
        keys_description = f"{keys.dtype} of shape {tuple(keys.shape)}"
        fix = f"{KEY_NAME}=ids.long(), a tensor of shape ({len(x)},)"
        raise ArgumentError(f"context[{KEY_NAME!r}]", rule, keys_description, fix)
    return keys.long()


def content_keys(x: Float[Tensor, "T ..."]) -> Int[Tensor, " T"]:
    """A hash of each row's values: equal rows have equal keys, on any machine.

    Values are rounded to multiples of 2⁻¹⁶, so that a row of pixels keeps its key in another number format and despite
    rounding errors.

    Example:
        >>> content_keys(torch.tensor([[0.5, 1.0], [1.0, 0.5], [0.5, 1.0]])).unique().numel()
        2
    """
    quantized = (x.detach().flatten(1).double() * 2**16).round().long()
    # Each feature has an odd factor of its own. Sums of whole numbers wrap round: their order makes no difference.
    feature = torch.arange(1, quantized.shape[1] + 1, device=x.device)
    return (mix_bits(quantized + 1) * (2 * mix_bits(feature) + 1)).sum(1)
