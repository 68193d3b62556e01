"""Mean variance over experts of the rows' gate distributions, negated."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows, variance


@needs(distribution=True)
def sample_variance(routing: Routing) -> Float[Tensor, ""]:
    """The negated mean variance of the rows' gate distributions: smallest when each row puts all on one expert.

    loss = −mean_i Var_E(G(x_i)),  Var_E(p) = Σ_e (p_e − mean)² / E

    Range [−(E − 1)/E², 0]; the minimum lies where every row puts all probability on one expert (which may differ
    between rows), the maximum 0 where every row is uniform. The sign is the one that the study intends.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> sample_variance(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(-0.2500)

    Reference: study 2's sample term of the variance loss, as intended; `sample_variance_literal` has the other sign.
    """
    return -mean_over_rows(variance(gate_distribution(routing)))
