"""The elementwise maximum of several gate heads' weighted sums."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._activation import activate_outputs, activation_named
from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Routing


class HeadMaximum:
    """y = max_h Σ_e w_he · a(y_e), elementwise: the largest of the gate heads' mixtures.

    With one head the result is the weighted sum. Tied heads share the gradient.

    Arguments:
        activation: a, one of none, softmax, as in `weighted_sum`.

    Arguments of the call:
        values: the experts' outputs, (T, E, …) without a selection, else (A, …).
        routing: the weights.

    Returns: (T, …).

    Raises:
        ArgumentError: an unknown activation, or a softmax of outputs without an axis of classes.

    Example:
        >>> from moebius.routers import Argmax, Heads
        >>> routing = Heads(Argmax(), heads=2)(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
        >>> HeadMaximum()(torch.tensor([[2.0, 5.0], [4.0, 2.0]]), routing)
        tensor([[4., 5.]])

    Reference: study 3's `two-gates-max`.
    """

    gives_log_probabilities = False

    def __init__(self, activation: str = "none"):
        self.activation = activation_named(activation)

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T ..."]:
        """Merge the outputs of each row's experts."""
        if routing.head_weights is None:
            return WeightedSum(self.activation)(values, routing)
        weighted_sum, values = WeightedSum(), activate_outputs(values, routing, self.activation)
        heads = routing.head_weights.split(1, 1)
        return torch.stack([weighted_sum(values, replace(routing, head_weights=head)) for head in heads]).amax(0)
