"""Target distributions over experts for each row, from each expert's loss on it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.core.processes import maximum_over_processes, sum_over_processes
from moebius.core.routing import Routing
from moebius.kit.arguments import non_negative
from moebius.kit.errors import ArgumentError
from moebius.losses._distribution import log_distribution


@torch.no_grad()
def responsibilities(
    routing: Routing, expert_losses: Float[Tensor, "T E"], temperature: float | int, balanced: int
) -> Float[Tensor, "T E"]:
    """h = softmax_e((ln G − loss) / temperature); at temperature 0, 1 for the expert with the smallest loss, else 0.

    Infinite losses are replaced by very large ones: where the losses of all experts are infinite, h follows the gate.

    Arguments:
        routing: its `probs` are G, the prior; not read at temperature 0.
        expert_losses: the loss of each expert on each row.
        temperature: at least 0; 1 for the responsibilities of the EM algorithm.
        balanced: number of Sinkhorn iterations, each of which scales columns and then rows to equal sums; 0 for none.

    Raises:
        ArgumentError: a negative `temperature` or `balanced`; a temperature above 0 where `probs` are no distributions.
    """
    temperature = non_negative("temperature", temperature)
    if isinstance(balanced, bool) or not isinstance(balanced, int) or balanced < 0:
        raise ArgumentError("balanced", "needs a whole number of at least 0", balanced, "balanced: 3")
    losses = at_least_float32(expert_losses)
    largest = torch.finfo(losses.dtype).max / 4
    losses = losses.clamp(max=largest)
    logits = losses.amin(-1, keepdim=True) - losses
    if temperature > 0:
        logits = ((log_distribution(routing) + logits) / temperature).clamp(min=-largest)
    for _ in range(balanced):
        logits = logits - _log_sum_over_rows(logits)
        logits = logits.log_softmax(-1)
    if temperature > 0:
        return logits.softmax(-1)
    return torch.zeros_like(logits).scatter(1, logits.argmax(-1, keepdim=True), 1.0)


def expert_targets(
    routing: Routing,
    expert_losses: Float[Tensor, "T E"],
    temperature: float | int,
    balanced: int,
    floor: float | int,
) -> Float[Tensor, "T E"]:
    """(1 − floor) · h + floor / E: the weight of each row in the loss of each expert; rows sum to 1.

    Raises:
        ArgumentError: a `floor` outside 0 to 1; whatever `responsibilities` refuses.
    """
    if isinstance(floor, bool) or not 0 <= floor <= 1:
        raise ArgumentError("floor", "needs a number from 0 to 1", floor, "floor: 0.1")
    targets = responsibilities(routing, expert_losses, temperature, balanced)
    return (1 - floor) * targets + floor / routing.experts


def _log_sum_over_rows(logits: Float[Tensor, "T E"]) -> Float[Tensor, " E"]:
    """ln Σ_i exp(logits_i) over the rows of all processes."""
    # With one row of −∞ more, since this process may have none and the maximum of nothing is an error.
    highest = maximum_over_processes(F.pad(logits, (0, 0, 0, 1), value=-torch.inf).amax(0))
    return highest + sum_over_processes((logits - highest).exp().sum(0)).log()
