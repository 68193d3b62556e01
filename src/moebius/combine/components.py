"""The combine that keeps the experts apart: each is a component of a mixture of densities."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._log_space import log_sum_exp
from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError


class Components:
    """y_e = (log w_e, y_e): every expert's outputs beside the logarithm of its weight, for a task that mixes them.

    A density of the target is mixed by its likelihood, log Σ_e w_e p(target; y_e), which no sum of outputs gives:
    the task `gaussian` reads the outputs of an expert as means and scales. The result is one tensor, in float32 at
    least, so that it is stored, batched and exported like any other. An expert that was not chosen has log w = −inf,
    outputs of 0 where it did not run, and no gradient.

    Experts that are mixtures with this combine are flattened, (log w_e + log w_ec, y_ec): a tree is the mixture of its
    leaves.

    Arguments:
        renormalise: whether the weights of a row are scaled to sum to 1, for routers whose rows do not (top-k with
            k = 1, whose weight is a probability, and relu gates). With one expert for a row its weight is then 1, and
            has no gradient.

    Arguments of the call:
        values: the experts' outputs, (T, E, C) without a selection, else (A, C); those of experts that are mixtures
            with this combine, (T, E, M, 1 + C) or (A, M, 1 + C).
        routing: the weights.

    Returns: (T, E, 1 + C); (T, E·M, 1 + C) for experts that are mixtures.

    Raises:
        ArgumentError: experts whose outputs have other axes, weights per class, or a straight-through router while it
            trains: the gradient of a weight that is 0 cannot go through its logarithm.

    Example:
        >>> from moebius.routers import Soft
        >>> Components()(torch.tensor([[[2.0, 0.0], [4.0, 2.0]]]), Soft()(torch.zeros(1, 2)))
        tensor([[[-0.6931,  2.0000,  0.0000],
                 [-0.6931,  4.0000,  2.0000]]])

    Reference: Bishop 1994, Mixture Density Networks, section 3; Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures
    of Local Experts, equation 1.3, for the likelihood.
    """

    gives_log_probabilities = False
    exempt: ClassVar[Mapping[str, str]] = {
        "gives_one_output_for_each_row": "it gives one for each row and expert",
        "does_not_depend_on_the_order_of_experts": "experts that change places change places in the output",
        "gives_equal_outputs_whatever_their_weights": "equal experts are equal components with their own weights",
    }

    def __init__(self, renormalise: bool = False):
        self.renormalise = renormalise

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T M C"]:
        """Put the logarithm of each expert's weight before its outputs."""
        _check_routing(routing)
        values = _spread_over_experts(at_least_float32(values), routing)
        if values.ndim not in (3, 4):
            rule = "needs experts that give a row of numbers, (rows, C), or components of them, (rows, M, 1 + C)"
            fix = "experts=mb.experts.Linear(features, 2)    # a mean and a scale"
            raise ArgumentError("experts", rule, (len(values), *values.shape[2:]), fix)
        log_weights = routing.log_weights.to(values.dtype)
        if self.renormalise:
            total = log_sum_exp(log_weights)
            log_weights = log_weights - torch.where(total > -torch.inf, total, 0).unsqueeze(1)
        log_weights = log_weights.unsqueeze(-1)
        if values.ndim == 3:
            return torch.cat([log_weights, values], -1)
        joint = torch.cat([(log_weights + values[..., 0]).unsqueeze(-1), values[..., 1:]], -1)
        return joint.flatten(1, 2)


def _check_routing(routing: Routing) -> None:
    if routing.straight_through:
        rule = "a straight-through router has weights of 0 with a gradient, which their logarithms cannot hand on"
        raise ArgumentError("combine", rule, "components", "router=mb.routers.GumbelSoftmax()")
    if routing.head_weights is not None and routing.head_weights.shape[-1] > 1:
        rule = "keeps one weight of each expert, and this router has one for each class"
        raise ArgumentError("combine", rule, "components", "router=mb.routers.Soft()")


def _spread_over_experts(values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T E ..."]:
    """Outputs of assignments as those of each row and expert, 0 where there is none."""
    selection = routing.selection
    if selection is None:
        return values
    rows, experts = routing.weights.shape
    place_A = selection.row_A * experts + selection.expert_A
    kept = selection.kept_A.view(-1, *[1] * (values.ndim - 1))
    sums = values.new_zeros(rows * experts, *values.shape[1:]).index_add(0, place_A, torch.where(kept, values, 0))
    # A pair that is selected twice has its weights added up, and its outputs once.
    counts = values.new_zeros(rows * experts).index_add(0, place_A, selection.kept_A.to(values.dtype))
    return (sums / counts.clamp(min=1).view(-1, *[1] * (values.ndim - 1))).unflatten(0, (rows, experts))
