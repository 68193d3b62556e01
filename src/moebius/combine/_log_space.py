"""Logarithms and sums in log space whose gradients stay finite where a probability is 0."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.transforms import transform_active


def log(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log w; −inf with a gradient of zero, not NaN, for a weight of 0: one of a kept assignment may underflow."""
    is_nonzero = weights != 0
    return torch.where(is_nonzero, torch.where(is_nonzero, weights, 1).log(), -torch.inf)


def log_sum_exp(joint: Float[Tensor, "T E *classes"]) -> Float[Tensor, "T *classes"]:
    """logsumexp over axis 1, with gradients of zero where all values are −inf; those of torch.logsumexp are NaN.

    Under transforms of torch.func it is computed in plain, slower operations.
    """
    if not transform_active():
        return _LogSumExp.apply(joint)  # type: ignore[return-value]
    highest = joint.detach().amax(1)
    is_possible = highest > -torch.inf
    shift = torch.where(is_possible, highest, 0)
    total = (joint - shift.unsqueeze(1)).exp().sum(1)
    return torch.where(is_possible, torch.where(is_possible, total, 1).log() + shift, -torch.inf)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, joint):
        total = joint.logsumexp(1)
        ctx.save_for_backward(joint, total)
        return total

    @staticmethod
    def backward(ctx, *gradients):
        joint, total = ctx.saved_tensors
        shift = torch.where(total > -torch.inf, total, 0)
        return gradients[0].unsqueeze(1) * (joint - shift.unsqueeze(1)).exp()
