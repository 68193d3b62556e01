"""Mean square of the logarithm of the softmax's normaliser."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing
from moebius.losses._distribution import mean_over_rows


def z_loss(routing: Routing) -> Float[Tensor, ""]:
    """The mean square of the scores' log-normaliser: keeps scores small, where rounding changes them little.

    loss = mean_i (ln Σ_e exp(s_ie))²

    s are the scores, before any normalisation; a shift of all scores of a row, which leaves their softmax unchanged,
    changes the loss. It is computed in float32 at least. A row whose scores are all −∞ adds 0.

    Range [0, ∞); the minimum 0 lies where every row's normaliser is 1: where its scores are log-probabilities.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> z_loss(Soft()(torch.zeros(3, 2)))
        tensor(0.4805)

    Reference: Zoph, Bello, Kumar, Du, Huang, Dean, Shazeer, Fedus 2022, ST-MoE: Designing Stable and Transferable
    Sparse Expert Models, equation 5; its factor is the recipe's `weight`.
    """
    scores = at_least_float32(routing.scores)
    # The gradient of logsumexp is NaN where all scores are −∞: such rows get other scores, and then a loss of 0.
    empty = (scores == -torch.inf).all(-1)
    normaliser = torch.where(empty.unsqueeze(-1), 0, scores).logsumexp(-1)
    return mean_over_rows(torch.where(empty, 0, normaliser).square())
