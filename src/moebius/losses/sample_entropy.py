"""Mean entropy of the rows' gate distributions."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


@needs(distribution=True)
def sample_entropy(routing: Routing) -> Float[Tensor, ""]:
    """The mean entropy of the rows' gate distributions: smallest when each row puts all probability on one expert.

    loss = mean_i H(G(x_i)),  H(p) = −Σ_e p_e ln p_e

    Range [0, ln E], in nats; the minimum 0 lies where every row puts all probability on one expert (which may differ
    between rows), the maximum ln E where every row is uniform.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> sample_entropy(Soft()(torch.zeros(3, 2)))
        tensor(0.6931)

    Reference: study 2's sample term of the entropy loss.
    """
    return mean_over_rows(entropy(gate_distribution(routing)))
