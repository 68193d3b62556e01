"""Variance over experts of the mean gate distribution."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows, variance


@needs(distribution=True)
def batch_variance(routing: Routing) -> Float[Tensor, ""]:
    """The variance over experts of the mean gate distribution: smallest when the batch uses all experts equally.

    loss = Var_E(mean_i G(x_i)),  Var_E(p) = Σ_e (p_e − mean)² / E

    Range [0, (E − 1)/E²]; the minimum 0 lies where the mean over rows is uniform, the maximum where every row gives all
    its probability to the same expert. The sign is the one that the study intends: variance over experts is low where
    entropy is high. The mean is over the rows of one call: under gradient accumulation, over the micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> batch_variance(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(0.2500)

    Reference: study 2's batch term of the variance loss, as intended; `batch_variance_literal` has the other sign.
    """
    return variance(mean_over_rows(gate_distribution(routing)))
