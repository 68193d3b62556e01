"""Cross-entropy of the gate to the expert with the smallest loss."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import log_distribution, mean_over_rows
from moebius.losses._targets import responsibilities


@needs(distribution=True, expert_losses=True)
def best_expert(
    routing: Routing, expert_losses: Float[Tensor, "T E"], temperature: float | int = 0.0, balanced: int = 0
) -> Float[Tensor, ""]:
    """The cross-entropy of the gate to the expert with the smallest loss on each row; trains only the gate.

    loss = −mean_i Σ_e h_ie · ln G_e(x_i)
    h_i = softmax_e((ln G_e(x_i) − loss_ie) / temperature);  temperature 0: 1 for the expert with the least loss, else 0

    At temperature 0 the target of each row is its best expert, the first of those that tie, whatever the gate's scores:
    one step of matching pursuit. At 1, h are the responsibilities of EM, with the gate as prior, and the gradient for
    the gate is that of −ln Σ_e G_e exp(−loss_e). (As the temperature approaches 0 the prior stays: the target
    approaches the expert with the largest G_e exp(−loss_e).) h has no gradient. `best_fit` trains the experts by the
    same h.

    `balanced` evens out the targets first, so that one generally good expert does not get all rows: so many times, each
    expert's column of h and then each row is scaled to its share (Sinkhorn, in log space). At temperature 0 this
    happens at temperature 1 without the prior, and each row's target is its largest entry: loads are then only about
    even.

    Range [0, ∞), and never below the mean entropy of h; at temperature 0 the minimum 0 lies where the gate puts all
    probability on an expert with the smallest loss for every row. With `balanced` the columns are over the rows of one
    call: under gradient accumulation, over the micro-batch.

    Arguments:
        routing: its `probs` are G, the gate to train.
        expert_losses: (T, E), the loss of each expert on each row.
        temperature: at least 0.
        balanced: number of Sinkhorn iterations; 0 for none.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates); a negative `temperature` or
            `balanced`.

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
