"""Mean entropy of the rows' gate distributions."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses._distribution import entropy, gate_distribution, mean_over_rows


def sample_entropy(routing: Routing) -> Float[Tensor, ""]:
    """Is small when each row is sure of its expert.

    loss = mean_i H(G(x_i)),  H(p) = −Σ_e p_e ln p_e

    Range [0, ln E], in nats; the minimum 0 lies where every row has a single expert (not necessarily the same one), the
    maximum ln E where every row is uniform.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> sample_entropy(Soft()(torch.zeros(3, 2)))
        tensor(0.6931)

    Reference: study 2's sample term of the entropy loss.
    """
    return mean_over_rows(entropy(gate_distribution(routing)))
