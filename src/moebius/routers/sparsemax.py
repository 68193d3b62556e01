"""The router of the sparsemax distribution, which has exact zeros."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.routers._selecting import weighted_selection


class Sparsemax(Router):
    """The experts whose score is close to the largest see the row; the others have a weight of exactly 0.

    weights = probs = argmin_p ‖p − z‖² over the distributions p,  z = scores / temperature
    weights_e = max(z_e − t, 0), with the unique t for which they sum to 1

    The distribution nearest to z lies on the boundary of the simplex where the entries of z differ much: a single
    expert runs where its score leads by `temperature` or more, and all run where the scores are equal. An expert of
    weight 0 has no gradient; it is chosen again when the scores of the others fall.

    Arguments:
        temperature: above 0; the higher, the more experts run. `training.router` may give it a schedule.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where a weight is positive.

    Raises:
        ArgumentError: a temperature not above 0.

    Example:
        >>> Sparsemax()(torch.tensor([[1.0, 0.5, -1.0]])).weights
        tensor([[0.7500, 0.2500, 0.0000]])

    Reference: Martins, Astudillo 2016, From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label
    Classification, algorithm 1.
    """

    def __init__(self, temperature: float | int = 1.0):
        super().__init__()
        self.temperature = positive_number("temperature", temperature)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to the experts with a positive weight."""
        weights = _project_to_simplex(at_least_float32(scores) / self.temperature)
        return Routing.from_selection(scores, weights, weighted_selection(weights))


def _project_to_simplex(z: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    """The nearest point of the simplex for each row."""
    # A shift of the row does not change the result, and near 0 the largest entries keep all their digits.
    z = z - z.detach().amax(-1, keepdim=True)
    largest = z.sort(-1, descending=True).values
    total = largest.cumsum(-1)
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    size = (1 + rank * largest > total).sum(-1, keepdim=True)
    threshold = (total.gather(-1, size - 1) - 1) / size
    return (z - threshold).clamp(min=0)
