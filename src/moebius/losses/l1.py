"""Mean sum of the gate's activations."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.losses._distribution import mean_over_rows


def l1(routing: Routing) -> Float[Tensor, ""]:
    """The mean sum of the gate's activations: smallest when they are small and, for relu gates, few.

    loss = mean_i Σ_e |a_ie|

    a are the gate's activations, `probs`, of all experts, including those that the router does not choose. The loss is
    for gates whose activations may all be 0, above all relu; a distribution sums to 1 whatever the scores.

    Range [0, ∞); the minimum 0 lies where all activations are 0.

    Raises:
        ArgumentError: the gate's activations are a distribution.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> l1(Soft(normalisation="relu")(torch.tensor([[2.0, -1.0], [1.0, 1.0]])))
        tensor(2.)

    Reference: Wang, Zhu, Chen 2024, ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing, its L1
    regularisation of one layer; its factor, which follows the sparsity, is here the recipe's `weight` and schedule.
    """
    if routing.distribution:
        rule = "must be False for the loss l1, which is 1 for every distribution over the experts"
        fix = "router: {kind: relu} or router: {kind: soft, normalisation: relu}"
        raise ArgumentError("routing.distribution", rule, True, fix)
    return mean_over_rows(routing.probs.abs().sum(-1))
