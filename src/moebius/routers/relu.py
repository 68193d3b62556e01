"""The router that runs the experts with a positive score."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.routers._selecting import weighted_selection


class ReLU(Router):
    """The experts with a positive score see the row, weighted by the score; their number varies between rows.

    weights_e = probs_e = max(scores_e, 0)

    A penalty on the sum of weights (`l1`) makes the experts few. A row without a positive score keeps its best expert,
    with weight `floor` and the gradient of the score, so that the score can become positive again (in the paper such
    rows have no expert). In `probs` the floor has no gradient: a penalty would push such a score down without limit.

    Arguments:
        floor: weight of the best expert of a row without positive scores, above 0.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where a weight is positive.

    Raises:
        ArgumentError: a floor not above 0.

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
        best, best_T1 = wide_scores.max(-1, keepdim=True)
        # The value of the floor with the gradient of the score; no gradient where the score is −∞.
        floor_T1 = self.floor + torch.where(best.isfinite(), best - best.detach(), 0)
        best_only = torch.zeros_like(positive).scatter(1, best_T1, floor_T1)
        weights = torch.where(best > 0, positive, best_only)
        probs = torch.where(best > 0, positive, best_only.detach())
        return Routing.from_selection(scores, probs, weighted_selection(weights), distribution=False)
