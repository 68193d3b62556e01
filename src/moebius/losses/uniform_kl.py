"""Divergence of the mean gate distribution from the uniform one."""

from math import log

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


def uniform_kl(routing: Routing) -> Float[Tensor, ""]:
    """Is small when the batch as a whole uses all experts equally; 0 at best, whatever their number.

    loss = KL(mean_i G(x_i) ‖ 1/E) = ln E − H(mean_i G(x_i))

    The loss `batch_entropy` and a constant, so the gradient is the same.

    Range [0, ln E], in nats; the minimum 0 lies where the mean over rows is uniform, the maximum ln E where every row
    has the same single expert. A mean over the rows given: under gradient accumulation, of the micro-batch.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> uniform_kl(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(0.6931)

    Reference: Kullback, Leibler 1951, On Information and Sufficiency; as a loss of gates study 2's batch entropy.
    """
    mean = mean_over_rows(gate_distribution(routing))
    # The sum is 1, but 0 where there are no rows.
    return mean.sum() * log(routing.experts) - entropy(mean)
