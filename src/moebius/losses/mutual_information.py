"""Mutual information of row and expert, negated."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


@needs(distribution=True)
def mutual_information(routing: Routing) -> Float[Tensor, ""]:
    """The negated mutual information of row and expert: smallest when rows decide and together use all experts.

    loss = −I(expert; row) = mean_i H(G(x_i)) − H(mean_i G(x_i))

    I is how much a row tells about its expert. The loss is the sum of `sample_entropy` and `batch_entropy`.

    Range [−ln E, 0], in nats; the minimum −ln E lies where every row puts all probability on one expert and all experts
    have equally many rows, the maximum 0 where all rows have the same distribution (also for a single row). Descent on
    free scores may stop above the minimum: rows that have decided stay where they are, even if another expert has fewer
    rows. The mean is over the rows of one call: under gradient accumulation, over the micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> mutual_information(Soft()(torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])))
        tensor(-0.6931)

    Reference: Bridle, Heading, MacKay 1991, Unsupervised Classifiers, Mutual Information and 'Phantom Targets'; for
    gates ours, from study 2's two entropy terms.
    """
    probs = gate_distribution(routing)
    return mean_over_rows(entropy(probs)) - entropy(mean_over_rows(probs))
