"""Expected share of gates that are open."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import mean_over_rows
from moebius.losses._extra import aux_value


def expected_l0(routing: Routing) -> Float[Tensor, ""]:
    """Is small when few experts are expected to have a weight that is not zero.

    loss = mean_i Σ_e P(z_ie ≠ 0) / E

    The probability that a gate is open, `aux["open"]`, has a gradient where the number of open gates has none. The
    paper sums; here it is a share, so that a weight means the same for any number of experts.

    Range [0, 1]; the minimum 0 lies where all gates are closed for sure, the maximum 1 where all are open for sure.

    Raises:
        ArgumentError: the router has no gates that open by chance.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> expected_l0(replace(Soft()(torch.zeros(2, 2)), aux={"open": torch.tensor([[1.0, 0.0], [0.5, 0.5]])}))
        tensor(0.5000)

    Reference: Louizos, Welling, Kingma 2018, Learning Sparse Neural Networks through L0 Regularization, equation 12.
    """
    return mean_over_rows(aux_value(routing, "open", "router: {kind: hard_concrete}").mean(-1))
