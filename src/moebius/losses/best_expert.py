"""Cross-entropy of the gate to the expert that does best."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import log_distribution, mean_over_rows
from moebius.losses._targets import responsibilities


def best_expert(
    routing: Routing, expert_losses: Float[Tensor, "T E"], temperature: float | int = 0.0, balanced: int = 0
) -> Float[Tensor, ""]:
    """Is small when the gate names the expert that does best on the row; trains the gate alone.

    loss = −mean_i Σ_e h_ie · ln G_e(x_i)
    h_i = softmax_e((ln G_e(x_i) − loss_ie) / temperature);  temperature 0: 1 for the expert of least loss, else 0

    At temperature 0 each row takes the best expert, the first of those that tie, whatever the gate says: one step of
    matching pursuit. At 1, h are the responsibilities of EM, with the gate as prior, and the gradient for the gate is
    that of −ln Σ_e G_e exp(−loss_e). (Temperatures towards 0 keep the prior: theirs is the expert of largest
    G_e exp(−loss_e).) h has no gradient. `best_fit` is the experts' side of the same.

    With `balanced` the rows' targets are evened out first, so that no expert that is good at all gets all rows: that
    many times each expert's column of h, then each row, is scaled to its share (Sinkhorn, in log space). At temperature
    0 that is done at temperature 1 without the prior, and each row takes its largest: loads then are about even only.

    Range [0, ∞), and never below the mean entropy of h; at temperature 0 the minimum 0 lies where the gate is sure of
    an expert of least loss for every row. With `balanced` the columns are of the rows given: under gradient
    accumulation, of the micro-batch.

    Arguments:
        routing: whose gate is to learn.
        expert_losses: each expert's own loss on each row.
        temperature: at least 0.
        balanced: number of Sinkhorn iterations; 0 for none.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …); a negative temperature or number.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> best_expert(Soft()(torch.tensor([[0.5, 0.5]]).log()), torch.tensor([[1.0, 2.0]]))
        tensor(0.6931)

    Reference: Mallat, Zhang 1993, Matching Pursuits with Time-Frequency Dictionaries, for temperature 0; Jordan, Jacobs
    1994, Hierarchical Mixtures of Experts and the EM Algorithm, for 1; `balanced` is ours.
    """
    targets = responsibilities(routing, expert_losses, temperature, balanced)
    return mean_over_rows(-(targets * log_distribution(routing)).sum(-1))
