"""Divergence of the mean gate distribution from the uniform one."""

from math import log

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


@needs(distribution=True)
def uniform_kl(routing: Routing) -> Float[Tensor, ""]:
    """The divergence of the mean gate distribution from the uniform one: 0 when the batch uses all experts equally.

    loss = KL(mean_i G(x_i) ‖ 1/E) = ln E − H(mean_i G(x_i))

    It equals `batch_entropy` + ln E, so its gradient is that of `batch_entropy`.

    Range [0, ln E], in nats; the minimum 0 lies where the mean over rows is uniform, the maximum ln E where every row
    gives all its probability to the same expert. The mean is over the rows of one call: under gradient accumulation,
    over the micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> uniform_kl(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(0.6931)

    Reference: Kullback, Leibler 1951, On Information and Sufficiency; as a loss of gates study 2's batch entropy.
    """
    mean = mean_over_rows(gate_distribution(routing))
    # The mean sums to 1, or to 0 where the call has no rows.
    return mean.sum() * log(routing.experts) - entropy(mean)
