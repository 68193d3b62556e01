"""The router that runs as many experts as a row needs."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.errors import ArgumentError
from moebius.routers._normalisation import wide
from moebius.routers._selecting import where_weighed
from moebius.routing import Router, Routing


class Threshold(Router):
    """The fewest experts whose probabilities together reach p see the row: one where the gate is sure, more elsewhere.

    chosen = the most probable experts, as many as it takes for Σ probs ≥ p;  weights = probs of the chosen

    The most probable expert always runs; with p = 1 all do, as under `Soft`.

    Arguments:
        p: above 0, at most 1.
        renormalise: whether the weights of a row sum to 1; where one expert is chosen its weight then is 1, without a
            gradient.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where an expert was chosen.

    Raises:
        ArgumentError: p outside (0, 1].

    Example:
        >>> Threshold(p=0.7)(torch.tensor([[0.6, 0.3, 0.1]]).log()).weights
        tensor([[0.6000, 0.3000, 0.0000]])

    Reference: Huang et al. 2024, Harder Tasks Need More Experts: Dynamic Routing in MoE Models, equations 3 to 5.
    """

    def __init__(self, p: float | int = 0.9, renormalise: bool = False):
        super().__init__()
        if isinstance(p, bool) or not 0 < p <= 1:
            raise ArgumentError("p", "needs a number above 0, at most 1", p, "p: 0.9")
        self.p, self.renormalise = float(p), renormalise
        self.rows_sum_to = 1.0 if renormalise else None

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its most probable experts."""
        probs = wide(scores).softmax(-1)
        with torch.no_grad():
            ordered, place = torch.sort(probs, dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            # Sums of probabilities end a little off 1: with p = 1 none may be left out for that.
            chosen = torch.zeros_like(probs, dtype=torch.bool).scatter(1, place, (before < self.p) | (self.p == 1))
            chosen = chosen.scatter(1, place[:, :1], True)
        weights = torch.where(chosen, probs, 0)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing.from_selection(scores, probs, where_weighed(weights))
