"""The expected loss of one expert, drawn from the gate's distribution."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows


@needs(distribution=True, expert_losses=True)
def expectation(routing: Routing, expert_losses: Float[Tensor, "T E"]) -> Float[Tensor, ""]:
    """The expected loss of an expert drawn by the gate: smallest when probability lies on experts with a low loss.

    loss = mean_i Σ_e G_e(x_i) · loss_ie

    G is `probs` of all experts, even where the router runs only some of them. Gradients reach the gate, and each expert
    in proportion to its probability: experts compete for rows. An infinite loss adds 0 where the probability is exactly
    0.

    Range [0, ∞) for losses of at least 0; for fixed losses the minimum mean_i min_e loss_ie lies where every row has
    all its probability on an expert with the smallest loss, the maximum where it lies on one with the largest.

    Arguments:
        routing: its `probs` are G.
        expert_losses: (T, E), the loss of each expert on each row.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> expectation(Soft()(torch.tensor([[0.75, 0.25]]).log()), torch.tensor([[1.0, 2.0]]))
        tensor(1.2500)

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1.2.
    """
    probs = gate_distribution(routing)
    return mean_over_rows((probs * torch.where(probs > 0, expert_losses, 0)).sum(-1))
