"""The mean of several gate heads' weighted sums."""

from jaxtyping import Float
from torch import Tensor

from moebius.combine._activation import activation_named
from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Routing


class HeadMean:
    """y = mean_h Σ_e w_he · a(y_e): the mean of the gate heads' mixtures.

    It is the weighted sum divided by H, so that the outputs do not grow with the number of heads; with one head it is
    the weighted sum itself.

    Arguments:
        activation: a, one of none, softmax, as in `weighted_sum`.

    Arguments of the call:
        values: the experts' outputs, (T, E, …) without a selection, else (A, …).
        routing: the weights.

    Returns: (T, …).

    Raises:
        ArgumentError: an unknown activation, or a softmax of outputs without an axis of classes.

    Example:
        >>> import torch
        >>> from moebius.routers import Argmax, Heads
        >>> routing = Heads(Argmax(), heads=2)(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
        >>> HeadMean()(torch.tensor([[2.0, 0.0], [4.0, 2.0]]), routing)
        tensor([[3., 1.]])

    Reference: ours; compare study 3's `two-gates-sum`.
    """

    gives_log_probabilities = False

    def __init__(self, activation: str = "none"):
        self.activation = activation_named(activation)

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T ..."]:
        """Merge the outputs of each row's experts."""
        heads = 1 if routing.head_weights is None else routing.head_weights.shape[1]
        return WeightedSum(self.activation)(values, routing) / heads
