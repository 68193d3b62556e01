"""Shannon entropy with gradients that stay finite at probabilities of exactly 0."""

import torch
from jaxtyping import Float
from torch import Tensor


def entropy(probs: Float[Tensor, "... E"]) -> Float[Tensor, "..."]:
    """H(p) = −Σ_e p_e ln p_e over the last axis, in nats, with 0 ln 0 = 0.

    At p_e = 0 the derivative −ln p_e − 1 is infinite; here the term is cut out of the graph there, which is right for a
    softmax: its own derivative, p_e (…), is 0 at that place.
    """
    positive = probs > 0
    return -(probs * torch.where(positive, probs, 1).log()).sum(-1)
