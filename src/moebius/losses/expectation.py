"""The loss that one expert, drawn by the gate, is expected to have."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows


def expectation(routing: Routing, expert_losses: Float[Tensor, "T E"]) -> Float[Tensor, ""]:
    """Is small when a row's probability lies on experts that do well alone: they compete.

    loss = mean_i Σ_e G_e(x_i) · loss_ie

    G is `probs`, of all experts, also where the router runs only some of them. Gradients reach the gate and the
    experts, each in proportion to its probability. An infinite loss counts nothing where the probability is exactly 0.

    Range [0, ∞) for losses of at least 0; for given losses the minimum mean_i min_e loss_ie lies where every row has
    all its probability on an expert of least loss, the maximum where it has it on one of largest.

    Arguments:
        routing: whose gate is judged.
        expert_losses: each expert's own loss on each row.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> expectation(Soft()(torch.tensor([[0.75, 0.25]]).log()), torch.tensor([[1.0, 2.0]]))
        tensor(1.2500)

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1.2.
    """
    probs = gate_distribution(routing)
    return mean_over_rows((probs * torch.where(probs > 0, expert_losses, 0)).sum(-1))
