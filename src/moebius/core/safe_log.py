"""The logarithm of weights of which some are 0."""

import torch
from jaxtyping import Float
from torch import Tensor


def safe_log(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log w where w > 0, else −∞ with a gradient of zero; torch.log alone would give a gradient of NaN there.

    Example:
        >>> weights = torch.tensor([1.0, 0.0], requires_grad=True)
        >>> safe_log(weights).tolist()
        [0.0, -inf]
        >>> torch.autograd.grad(safe_log(weights)[0], weights)[0].tolist()
        [1.0, 0.0]
    """
    is_absent = (weights > 0).logical_not()
    # The logarithm of 0 itself would also take several times as long as that of 1.
    return weights.masked_fill(is_absent, 1).log().masked_fill(is_absent, -torch.inf)
