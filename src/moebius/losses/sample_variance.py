"""Mean variance over experts of the rows' gate distributions, negated."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows, variance


def sample_variance(routing: Routing) -> Float[Tensor, ""]:
    """Is small when each row is sure of its expert.

    loss = −mean_i Var_E(G(x_i)),  Var_E(p) = Σ_e (p_e − mean)² / E

    Range [−(E − 1)/E², 0]; the minimum lies where every row has a single expert (not necessarily the same one), the
    maximum 0 where every row is uniform. The sign is the one that the study intends.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> sample_variance(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(-0.2500)

    Reference: study 2's sample term of the variance loss, as intended; `sample_variance_literal` has the other sign.
    """
    return -mean_over_rows(variance(gate_distribution(routing)))
