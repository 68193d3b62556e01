"""The soft router."""

from jaxtyping import Float
from torch import Tensor

from moebius.routing import Router, Routing


class Soft(Router):
    """Every expert sees every row; weights are the softmax of the scores.

    weights = probs = softmax(scores), in float32 at least

    Shapes: scores (T, E) → Routing of T rows and E experts, `selection` None.

    Example:
        >>> import torch
        >>> Soft()(torch.tensor([[0.0, 0.0]])).weights
        tensor([[0.5000, 0.5000]])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1.
    """

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to every expert."""
        log_weights = scores.float().log_softmax(-1) if scores.itemsize < 4 else scores.log_softmax(-1)
        weights = log_weights.exp()
        return Routing(scores=scores, probs=weights, weights=weights, log_weights=log_weights)
