"""Squared coefficient of variation of the experts' load."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._aux import aux_value
from moebius.losses._distribution import mean_over_rows, squared_variation


@needs(aux=("load",))
def load(routing: Routing) -> Float[Tensor, ""]:
    """The squared variation of the experts' expected loads: smallest when all expect equally many rows of the batch.

    loss = CV²(Σ_i P_i),  CV²(a) = Var_E(a) / mean_E(a)²

    `aux["load"]` is P: P_ie is the probability that row i chooses expert e if its noise is drawn again, a smooth
    estimate of the number of rows, which has no gradient itself. Var is the population variance.

    Range [0, E − 1]; the minimum 0 lies where all experts expect the same number of rows, the maximum where one expert
    has all of them (E / k − 1 is the most when every row chooses k). The sums are over the rows of one call: under
    gradient accumulation, over the micro-batch. 0 for a single expert, also where the router gives no load.

    Raises:
        ArgumentError: the router gives no `aux["load"]`, and has several experts.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> load(replace(Soft()(torch.zeros(2, 2)), aux={"load": torch.tensor([[1.0, 0.0], [0.5, 0.5]])}))
        tensor(0.2500)

    Reference: Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean 2017, Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer, equations 8 to 11.
    """
    if routing.experts == 1 and "load" not in routing.aux:
        return squared_variation(mean_over_rows(routing.weights))
    fix = "router: {kind: noisy_top_k, k: 2}, or the loss switch_balance"
    return squared_variation(mean_over_rows(aux_value(routing, "load", fix)))
