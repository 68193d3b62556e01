"""Mutual information of row and expert, negated."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


def mutual_information(routing: Routing) -> Float[Tensor, ""]:
    """Is small when each row is sure of its expert and the rows together use all of them.

    loss = −I(expert; row) = mean_i H(G(x_i)) − H(mean_i G(x_i))

    The sum of the losses `sample_entropy` and `batch_entropy`: how much a row tells about its expert.

    Range [−ln E, 0], in nats; the minimum −ln E lies where every row has a single expert and all have equally many
    rows, the maximum 0 where all rows have the same distribution (a single row among them). Descent on free scores may
    stop before: rows that have decided stay, though another expert lacks some. The mean is over the rows given: under
    gradient accumulation, of the micro-batch.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

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
