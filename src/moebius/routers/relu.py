"""The router that runs the experts whose score is positive."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.routers._normalisation import at_least_float32
from moebius.routers._selecting import weighted_selection


class ReLU(Router):
    """The experts with a positive score see the row and weigh as much; their number varies by row.

    weights_e = probs_e = max(scores_e, 0)

    A penalty on their sum (`l1`) makes them few. A row that has no positive score keeps its best expert with weight
    `floor`, whose gradient is the score's, so that it can come back (the paper lets such rows go without). In `probs`
    the floor has no gradient: a penalty would push such a score down for ever.

    Arguments:
        floor: above 0.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where a weight is positive.

    Raises:
        ArgumentError: a floor that is not above 0.

    Example:
        >>> ReLU()(torch.tensor([[2.0, -1.0], [-3.0, -1.0]])).weights
        tensor([[2.0000, 0.0000],
                [0.0000, 0.0100]])

    Reference: Wang, Zhu, Chen 2024, ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing, its ReLU
    router; the factor of its L1 penalty is the recipe's.
    """

    rows_sum_to = None

    def __init__(self, floor: float | int = 0.01):
        super().__init__()
        self.floor = positive_number("floor", floor)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to the experts with a positive score."""
        wide_scores = at_least_float32(scores)
        positive = wide_scores.relu()
        best, place = wide_scores.max(-1, keepdim=True)
        # The value of the floor with the gradient of the score, which may be −∞.
        kept = self.floor + torch.where(best.isfinite(), best - best.detach(), 0)
        alone = torch.zeros_like(positive).scatter(1, place, kept)
        weights, probs = (torch.where(best > 0, positive, one) for one in (alone, alone.detach()))
        return Routing.from_selection(scores, probs, weighted_selection(weights), distribution=False)
