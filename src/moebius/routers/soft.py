"""The router that gives every row to every expert."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.routers._normalisation import normalisation_named, normalise


class Soft(Router):
    """Every expert sees every row; weights are the softmax, or another normalisation, of the scores.

    weights = probs = n(scores / temperature), in float32 at least

    n is softmax, a distribution over the experts; or sigmoid, relu, elu or none, which treat each expert by itself, so
    that rows need not sum to 1 (and weights of elu and none may be negative, which mixtures of probabilities cannot
    use). To run only the experts whose relu weight is positive, use the router `relu`.

    Arguments:
        temperature: above 0; below 1 sharpens, above 1 evens out. `training.router` may give it a schedule.
        normalisation: one of softmax, sigmoid, relu, elu, none.

    Shapes: scores (T, E) → Routing of T rows and E experts, `selection` None.

    Raises:
        ArgumentError: a temperature not above 0, or an unknown normalisation.

    Example:
        >>> import torch
        >>> Soft()(torch.tensor([[0.0, 0.0]])).weights
        tensor([[0.5000, 0.5000]])
        >>> Soft(normalisation="relu")(torch.tensor([[2.0, -1.0]])).weights
        tensor([[2., 0.]])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1; study 3 for elu.
    """

    def __init__(self, temperature: float | int = 1.0, normalisation: str = "softmax"):
        super().__init__()
        self.temperature = positive_number("temperature", temperature)
        self.normalisation = normalisation_named(normalisation)
        if normalisation != "softmax":
            self.rows_sum_to = None

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to every expert."""
        scaled = scores if self.temperature == 1 else scores / self.temperature
        weights, log_weights = normalise(scaled, self.normalisation)
        return Routing(scores, weights, weights, log_weights, distribution=self.normalisation == "softmax")
