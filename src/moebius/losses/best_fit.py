"""The loss of each row's best expert, which trains that expert."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import mean_over_rows
from moebius.losses._targets import expert_targets


@needs(expert_losses=True)
def best_fit(
    routing: Routing,
    expert_losses: Float[Tensor, "T E"],
    temperature: float | int = 0.0,
    balanced: int = 0,
    floor: float | int = 0.0,
) -> Float[Tensor, ""]:
    """The loss of the best expert of each row; trains only the experts.

    loss = mean_i Σ_e ((1 − floor) · h_ie + floor / E) · loss_ie
    h_i = softmax_e((ln G_e(x_i) − loss_ie) / temperature);  temperature 0: 1 for the expert with the least loss, else 0

    h is that of `best_expert`, which trains the gate by it; it has no gradient. At temperature 1, without a floor, the
    gradient for the experts is that of −ln Σ_e G_e exp(−loss_e): one step of EM. With a floor every expert keeps
    learning a little from every row, so that an expert that is best nowhere yet can become best; 1 trains all experts
    alike. An infinite loss adds 0 where its factor is exactly 0.

    Range [0, ∞) for losses of at least 0; the minimum 0 lies where on every row the experts with a positive factor have
    a loss of 0. With `balanced` the columns of h are over the rows of one call: under gradient accumulation, over the
    micro-batch.

    Arguments:
        routing: its `probs` are G, the prior; read only at temperatures above 0, so `needs` does not declare them.
        expert_losses: (T, E), the loss of each expert on each row.
        temperature: at least 0.
        balanced: number of Sinkhorn iterations that even out the experts' loads first; 0 for none.
        floor: share of each row that all experts learn from alike, 0 to 1.

    Raises:
        ArgumentError: a temperature above 0 where the rows of `probs` are not distributions (relu, elu … gates); a
            negative `temperature` or `balanced`; a `floor` outside 0 to 1.

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
    shares = expert_targets(routing, expert_losses, temperature, balanced, floor)
    return mean_over_rows((shares * torch.where(shares > 0, expert_losses, 0)).sum(-1))
