"""The combine by a weighted sum."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._activation import activate_outputs, activation_named
from moebius.core.routing import Routing


class WeightedSum:
    """y = Σ_e w_e · a(y_e): the weighted sum of the experts' outputs, which may be logits.

    a is the identity, or softmax over the last axis: then the experts' probabilities are mixed, in float32 at least,
    and the sum is treated as logits, as in softmax(Σ_e w_e · softmax(y_e)). If the sum itself should be a probability,
    use `log_mixture`. A logit of −∞ is a probability of exactly 0, with a gradient of 0.

    With several gate heads w_e is the sum over heads; with weights per class each class c, on the last axis of the
    outputs, has its w_ec.

    Arguments:
        activation: a, one of none, softmax.

    Arguments of the call:
        values: the experts' outputs, (T, E, …) without a selection, else (A, …).
        routing: the weights.

    Returns: (T, …).

    Raises:
        ArgumentError: an unknown activation, or a softmax of outputs without an axis of classes.

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
        """Merge the outputs of each row's experts."""
        values = activate_outputs(values, routing, self.activation)
        selection = routing.selection
        if routing.head_weights is not None:
            weights = routing.head_weights.sum(1).to(values.dtype)
            if selection is None:
                return (_align_weights(weights, values) * values).sum(1)
            weight = weights[selection.row_A, selection.expert_A] * selection.kept_A[:, None]
            return _add_to_rows(_align_weights(weight, values) * values, routing)
        if selection is None:
            weights = routing.weights.to(values.dtype)
            if self.activation == "softmax":
                # Not an einsum: autocast would compute it in bf16.
                return (_align_weights(weights.unsqueeze(-1), values) * values).sum(1)
            return torch.einsum("te,te...->t...", weights, values)
        weight = torch.where(selection.kept_A, selection.weight_A, 0).to(values.dtype)
        return _add_to_rows(_align_weights(weight.unsqueeze(-1), values) * values, routing)


def _align_weights(weights: Float[Tensor, "... C"], values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The weights with axes of length 1 before the classes, so that they broadcast against values of any shape."""
    leading = weights.shape[:-1]
    return weights.view((*leading, *[1] * (values.ndim - len(leading) - 1), weights.shape[-1])[: values.ndim])


def _add_to_rows(weighted: Float[Tensor, "A ..."], routing: Routing) -> Float[Tensor, "T ..."]:
    """The sum over the assignments of each row."""
    assert routing.selection is not None
    sums = weighted.new_zeros(len(routing.weights), *weighted.shape[1:])
    return sums.index_add(0, routing.selection.row_A, weighted)
