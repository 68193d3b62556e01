"""Building blocks of gate losses: the gate's distribution, means over rows, and how even a distribution is."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.processes import is_distributed, sum_over_processes
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError


def gate_distribution(routing: Routing) -> Float[Tensor, "T E"]:
    """`routing.probs`, for losses that need its rows to be distributions over the experts.

    Raises:
        ArgumentError: `probs` are activations, whose rows do not sum to 1.
    """
    if not routing.distribution:
        rule = "must be True for a loss of the gate's distribution; relu, elu … give none"
        raise ArgumentError("routing.distribution", rule, False, "router: {kind: soft, normalisation: softmax}")
    return routing.probs


def log_distribution(routing: Routing) -> Float[Tensor, "T E"]:
    """The logarithm of the gate's distribution, finite everywhere.

    Where the router's weights are `probs` itself, the result is `log_weights`, exact for any scores. For other routers,
    and for experts with a score of −∞, probabilities below the smallest normal number (10⁻³⁸ in float32) are replaced
    by that number, with a gradient of zero.
    """
    probs = at_least_float32(gate_distribution(routing))
    smallest = torch.finfo(probs.dtype).tiny
    if routing.probs is routing.weights:
        return torch.where(
            routing.log_weights > -torch.inf, routing.log_weights, torch.full_like(probs, smallest).log()
        )
    return probs.clamp(min=smallest).log()


def mean_over_rows(values: Float[Tensor, "T *rest"]) -> Float[Tensor, "*rest"]:
    """The mean over the first axis, of the rows of all processes, in float32 at least; 0 where there are no rows.

    A nested mixture that receives no row thus adds 0 to the objective, not NaN.
    """
    values = at_least_float32(values)
    total = values.sum(0)
    if not is_distributed():
        return total / max(len(values), 1)
    sums = sum_over_processes(torch.cat([total.flatten(), total.new_full((1,), len(values))]))
    return sums[:-1].view_as(total) / sums[-1].clamp(min=1)


def entropy(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """H(p) = −Σ_e p_e ln p_e over the last axis, in nats, with 0 ln 0 = 0.

    At p_e = 0 the derivative −ln p_e − 1 is infinite. There the term is a constant, without a gradient, which is right
    for a softmax: its derivative, p_e (…), is 0 at p_e = 0.
    """
    probs = at_least_float32(probs)
    positive = probs > 0
    return -(probs * torch.where(positive, probs, 1).log()).sum(-1)


def variance(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """Var(p) = Σ_e (p_e − mean)² / E over the last axis: the population variance, 0 for one expert."""
    probs = at_least_float32(probs)
    # torch.var would warn where there are no rows.
    return (probs - probs.mean(-1, keepdim=True)).square().mean(-1)


def squared_variation(amounts: Float[Tensor, " E"]) -> Float[Tensor, ""]:
    """CV² = Var(a) / mean(a)² of amounts that are at least 0; 0 where all are 0."""
    # Computed from shares of the total, whose mean is 1 / E: squares of small amounts would underflow.
    total = amounts.sum()
    return variance(amounts / torch.where(total > 0, total, 1)) * amounts.numel() ** 2
