"""Squared coefficient of variation of the experts' importance."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import mean_over_rows, squared_variation


def importance(routing: Routing) -> Float[Tensor, ""]:
    """The squared variation of the experts' total weights: smallest when the batch gives all experts equal weight.

    loss = CV²(Σ_i w_i),  CV²(a) = Var_E(a) / mean_E(a)²

    w_i are the weights (the paper's G(x), zero where an expert was not chosen), Var the population variance. CV² has no
    scale: the number of rows does not change it, nor does a factor on all weights.

    Range [0, E − 1]; the minimum 0 lies where all experts have the same sum, the maximum where a single expert has all
    (the paper does not divide by E − 1, nor do we). The weights must be at least 0, which those of elu and none gates
    are not. Equal sums are not equal loads: a few rows with large weights balance many with small ones; see `load`. The
    sums are over the rows of one call: under gradient accumulation, over the micro-batch.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> importance(Soft()(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log()))
        tensor(0.2500)

    Reference: Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean 2017, Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer, equations 6 and 7; its factor is the recipe's `weight`.
    """
    return squared_variation(mean_over_rows(routing.weights))
