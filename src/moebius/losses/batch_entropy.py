"""Entropy of the mean gate distribution, negated."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


@needs(distribution=True)
def batch_entropy(routing: Routing) -> Float[Tensor, ""]:
    """The negated entropy of the mean gate distribution: smallest when the batch as a whole uses all experts equally.

    loss = −H(mean_i G(x_i)),  H(p) = −Σ_e p_e ln p_e

    Range [−ln E, 0], in nats; the minimum −ln E lies where the mean over rows is uniform, the maximum 0 where every row
    gives all its probability to the same expert. The mean is over the rows of one call: under gradient accumulation,
    over the micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> batch_entropy(Soft()(torch.zeros(3, 2)))
        tensor(-0.6931)

    Reference: study 2's batch term of the entropy loss, negated so that smaller is better.
    """
    return -entropy(mean_over_rows(gate_distribution(routing)))
