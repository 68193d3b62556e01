"""The router that runs the fewest experts whose probabilities reach a threshold."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.errors import ArgumentError
from moebius.routers._selecting import sort_scores, weighted_selection


class Threshold(Router):
    """The fewest experts whose probabilities sum to p or more see the row; their number varies between rows.

    chosen = the most probable experts, the fewest with Σ probs ≥ p;  weights = probs of the chosen

    The most probable expert always runs; with p = 1 all run, as with the router `soft`. If the gate's distributions are
    near uniform, nearly all experts run: a loss on their entropy (`sample_entropy`) keeps the experts few.

    Arguments:
        p: the threshold, above 0, at most 1; `training.router` may give it a schedule.
        renormalise: whether the weights of a row are scaled to sum to 1; a single chosen expert then has weight 1,
            without a gradient.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where an expert was chosen.

    Raises:
        ArgumentError: p outside (0, 1].

    Example:
        >>> Threshold(p=0.7)(torch.tensor([[0.6, 0.3, 0.1]]).log()).weights
        tensor([[0.6000, 0.3000, 0.0000]])

    Reference: Huang et al. 2024, Harder Tasks Need More Experts: Dynamic Routing in MoE Models (routing by a
    threshold p).
    """

    def __init__(self, p: float | int = 0.9, renormalise: bool = False):
        super().__init__()
        if isinstance(p, bool) or not 0 < p <= 1:
            raise ArgumentError("p", "needs a number above 0, at most 1", p, "p: 0.9")
        self.p, self.renormalise = float(p), renormalise
        self.rows_sum_to = 1.0 if renormalise else None

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its most probable experts."""
        probs = at_least_float32(scores).softmax(-1)
        with torch.no_grad():
            sorted_probs, expert_TE = sort_scores(probs)
            sum_before = F.pad(sorted_probs.cumsum(-1)[:, :-1], (1, 0))
            # By rounding, sums of probabilities may reach 1 too early: with p = 1 all experts are chosen nevertheless.
            is_needed = (sum_before < self.p) | (self.p >= 1)
            chosen = torch.zeros_like(is_needed).scatter(1, expert_TE, is_needed)
        weights = torch.where(chosen, probs, 0)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing.from_selection(scores, probs, weighted_selection(weights))
