"""Expected share of gates that are open."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._aux import aux_value
from moebius.losses._distribution import mean_over_rows


@needs(aux=("open",))
def expected_l0(routing: Routing) -> Float[Tensor, ""]:
    """The expected share of gates that are open: smallest when few experts are expected to have a weight above 0.

    loss = mean_i Σ_e P(z_ie ≠ 0) / E

    `aux["open"]` is P(z ≠ 0), the probability that a gate is open: it has a gradient, which the number of open gates
    has not. The paper sums; here the loss is a share, so that a weight means the same for any number of experts.

    Range [0, 1]; the minimum 0 lies where all gates are certainly closed, the maximum 1 where all are certainly open.

    Raises:
        ArgumentError: the router gives no `aux["open"]`, the probability that a gate is open.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> expected_l0(replace(Soft()(torch.zeros(2, 2)), aux={"open": torch.tensor([[1.0, 0.0], [0.5, 0.5]])}))
        tensor(0.5000)

    Reference: Louizos, Welling, Kingma 2018, Learning Sparse Neural Networks through L0 Regularization, equation 12.
    """
    return mean_over_rows(aux_value(routing, "open", "router: {kind: hard_concrete}").mean(-1))
