"""What the gate losses are made of: the mean over rows, and how even a distribution is."""

import torch
from jaxtyping import Float
from torch import Tensor


def mean_over_rows(values: Float[Tensor, "T *rest"]) -> Float[Tensor, "*rest"]:
    """The mean over the first axis, in float32 at least; 0 where there are no rows.

    A nested mixture that no row reached then adds nothing to the objective, instead of NaN.
    """
    values = values.float() if values.itemsize < 4 else values
    return values.sum(0) / max(len(values), 1)


def entropy(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """H(p) = −Σ_e p_e ln p_e over the last axis, in nats, with 0 ln 0 = 0.

    At p_e = 0 the derivative −ln p_e − 1 is infinite; here the term is cut out of the graph there, which is right for a
    softmax: its own derivative, p_e (…), is 0 at that place.
    """
    probs = probs.float() if probs.itemsize < 4 else probs
    positive = probs > 0
    return -(probs * torch.where(positive, probs, 1).log()).sum(-1)


def variance(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """Var(p) = Σ_e (p_e − mean)² / E over the last axis: the population variance, 0 for one expert."""
    probs = probs.float() if probs.itemsize < 4 else probs
    # Not torch.var, which warns where there are no rows.
    return (probs - probs.mean(-1, keepdim=True)).square().mean(-1)
