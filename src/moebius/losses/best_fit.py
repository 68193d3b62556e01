"""The loss of the expert that does best, for it to do better."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import mean_over_rows
from moebius.losses._targets import expert_targets


def best_fit(
    routing: Routing,
    expert_losses: Float[Tensor, "T E"],
    temperature: float | int = 0.0,
    balanced: int = 0,
    floor: float | int = 0.0,
) -> Float[Tensor, ""]:
    """Is small when the experts do well on the rows they do best on; trains the experts alone.

    loss = mean_i Σ_e ((1 − floor) · h_ie + floor / E) · loss_ie
    h_i = softmax_e((ln G_e(x_i) − loss_ie) / temperature);  temperature 0: 1 for the expert of least loss, else 0

    h as in `best_expert`, without a gradient, which is the gate's side of the same. At temperature 1, without a floor,
    the gradient for the experts is that of −ln Σ_e G_e exp(−loss_e): one step of EM. With a floor every expert goes on
    learning a little from every row, so that one that is best nowhere yet can become so; 1 trains all alike. An
    infinite loss counts nothing where its factor is exactly 0.

    Range [0, ∞) for losses of at least 0; the minimum 0 lies where on every row the experts that h (or the floor) asks
    have a loss of 0. With `balanced` the columns of h are of the rows given: under gradient accumulation, of the
    micro-batch.

    Arguments:
        routing: its gate is the prior where the temperature is above 0.
        expert_losses: each expert's own loss on each row.
        temperature: at least 0.
        balanced: number of Sinkhorn iterations that even out the experts' loads first; 0 for none.
        floor: share of each row that all experts learn from alike, 0 to 1.

    Raises:
        ArgumentError: a temperature above 0 and gate weights that are no distribution (relu, elu …); a negative
            temperature or number; a floor outside 0 to 1.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> best_fit(Soft()(torch.zeros(2, 2)), torch.tensor([[1.0, 2.0], [4.0, 2.0]]))
        tensor(1.5000)
        >>> best_fit(Soft()(torch.zeros(2, 2)), torch.tensor([[1.0, 2.0], [4.0, 2.0]]), floor=1.0)
        tensor(2.2500)

    Reference: Mallat, Zhang 1993, Matching Pursuits with Time-Frequency Dictionaries, for temperature 0; Jordan, Jacobs
    1994, Hierarchical Mixtures of Experts and the EM Algorithm, for 1; `balanced` and the floor are ours.
    """
    share = expert_targets(routing, expert_losses, temperature, balanced, floor)
    return mean_over_rows((share * torch.where(share > 0, expert_losses, 0)).sum(-1))
