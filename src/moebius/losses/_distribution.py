"""What the gate losses are made of: the gate's distribution, means over rows, and how even a distribution is."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.processes import is_distributed, sum_over_processes
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32


def gate_distribution(routing: Routing) -> Float[Tensor, "T E"]:
    """`probs`, for the losses that need its rows to be distributions over the experts.

    Raises:
        ArgumentError: they are activations that sum to anything.
    """
    if not routing.distribution:
        rule = "must be True for a loss of the gate's distribution; the gate weights are none (relu, elu …)"
        raise ArgumentError("routing.distribution", rule, False, "router: {kind: soft, normalisation: softmax}")
    return routing.probs


def log_distribution(routing: Routing) -> Float[Tensor, "T E"]:
    """The logarithm of the gate's distribution, finite everywhere.

    Where the router multiplies with `probs` itself it is `log_weights`, exact for any scores. Elsewhere, and where an
    expert is ruled out, probabilities below the smallest normal number (10⁻³⁸ in float32) count as that number, with a
    gradient of zero.
    """
    probs = at_least_float32(gate_distribution(routing))
    least = torch.finfo(probs.dtype).tiny
    if routing.probs is routing.weights:
        return torch.where(routing.log_weights > -torch.inf, routing.log_weights, torch.full_like(probs, least).log())
    return probs.clamp(min=least).log()


def mean_over_rows(values: Float[Tensor, "T *rest"]) -> Float[Tensor, "*rest"]:
    """The mean over the first axis, of the rows of all processes, in float32 at least; 0 where there are no rows.

    A nested mixture that no row reached then adds nothing to the objective, instead of NaN.
    """
    values = at_least_float32(values)
    total = values.sum(0)
    if not is_distributed():
        return total / max(len(values), 1)
    both = sum_over_processes(torch.cat([total.flatten(), total.new_full((1,), len(values))]))
    return both[:-1].view_as(total) / both[-1].clamp(min=1)


def entropy(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """H(p) = −Σ_e p_e ln p_e over the last axis, in nats, with 0 ln 0 = 0.

    At p_e = 0 the derivative −ln p_e − 1 is infinite; here the term is cut out of the graph there, which is right for a
    softmax: its own derivative, p_e (…), is 0 at that place.
    """
    probs = at_least_float32(probs)
    positive = probs > 0
    return -(probs * torch.where(positive, probs, 1).log()).sum(-1)


def variance(probs: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows"]:
    """Var(p) = Σ_e (p_e − mean)² / E over the last axis: the population variance, 0 for one expert."""
    probs = at_least_float32(probs)
    # Not torch.var, which warns where there are no rows.
    return (probs - probs.mean(-1, keepdim=True)).square().mean(-1)


def squared_variation(amounts: Float[Tensor, " E"]) -> Float[Tensor, ""]:
    """CV² = Var(a) / mean(a)² of amounts that are at least 0; 0 where all are 0."""
    # Of their shares, whose mean is 1 / E: squares of small amounts would underflow.
    total = amounts.sum()
    return variance(amounts / torch.where(total > 0, total, 1)) * amounts.numel() ** 2
