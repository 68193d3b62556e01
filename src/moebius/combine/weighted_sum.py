"""The weighted sum."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._activation import activate_outputs, activation_named
from moebius.core.routing import Routing


class WeightedSum:
    """y = Σ_e w_e · a(y_e): a mixture of the experts' outputs, logits among them.

    a is nothing, or softmax over the last axis: then the experts' probabilities are mixed, in float32 at least, and
    their sum goes on as logits, as in softmax(Σ_e w_e · softmax(y_e)). For a sum that is to be a probability itself
    take `log_mixture`. A logit of −∞ is a probability of exactly 0, whose gradient is 0.

    With several gate heads their sums add up (w_e is the sum over heads); with weights per class each class,
    the outputs' last axis, has its own.

    Arguments:
        activation: a, one of none, softmax.

    Arguments of the call:
        values: the experts' outputs, (T, E, …) without a selection, else (A, …).
        routing: the weights.

    Returns: (T, …).

    Raises:
        ArgumentError: an unknown activation, or a softmax of outputs that are single numbers.

    Example:
        >>> from moebius.routers import Soft
        >>> routing = Soft()(torch.zeros(1, 2))
        >>> WeightedSum()(torch.tensor([[[2.0, 0.0], [4.0, 2.0]]]), routing)
        tensor([[3., 1.]])
        >>> WeightedSum(activation="softmax")(torch.tensor([[[0.0, 0.0], [0.0, -torch.inf]]]), routing)
        tensor([[0.7500, 0.2500]])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1; study 3 for softmax.
    """

    gives_log_probabilities = False

    def __init__(self, activation: str = "none"):
        self.activation = activation_named(activation)

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T ..."]:
        """Merge the outputs."""
        values = activate_outputs(values, routing, self.activation)
        selection = routing.selection
        if routing.head_weights is not None:
            weights = routing.head_weights.sum(1).to(values.dtype)
            if selection is None:
                return (_beside(weights, values) * values).sum(1)
            weight = weights[selection.row_A, selection.expert_A] * selection.kept_A[:, None]
            return _add_to_rows(_beside(weight, values) * values, routing)
        if selection is None:
            weights = routing.weights.to(values.dtype)
            if self.activation == "softmax":
                # Autocast would make bf16 of the einsum.
                return (_beside(weights.unsqueeze(-1), values) * values).sum(1)
            return torch.einsum("te,te...->t...", weights, values)
        weight = torch.where(selection.kept_A, selection.weight_A, 0).to(values.dtype)
        return _add_to_rows(_beside(weight.unsqueeze(-1), values) * values, routing)


def _beside(weights: Float[Tensor, "... C"], values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The weights with axes of 1 before the classes, so that they multiply values of any shape."""
    leading = weights.shape[:-1]
    return weights.view((*leading, *[1] * (values.ndim - len(leading) - 1), weights.shape[-1])[: values.ndim])


def _add_to_rows(weighted: Float[Tensor, "A ..."], routing: Routing) -> Float[Tensor, "T ..."]:
    assert routing.selection is not None
    rows = weighted.new_zeros(len(routing.weights), *weighted.shape[1:])
    return rows.index_add(0, routing.selection.row_A, weighted)
