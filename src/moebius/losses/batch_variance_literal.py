"""The batch term of the variance loss with the sign as published: it rewards collapse."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.losses.batch_variance import batch_variance


def batch_variance_literal(routing: Routing) -> Float[Tensor, ""]:
    """Is small when the whole batch goes to one expert: the wrong sign, shipped to be studied.

    loss = −Var_E(mean_i G(x_i))

    The study defines its variance loss "similarly" to the entropy loss and reports that both gates collapsed onto one
    expert. Variance over experts is low where entropy is high, so putting variance literally in entropy's place turns
    the sign round and asks for that very collapse. This term shows whether the sign explains what was published; to
    balance experts take `batch_variance`.

    Range [−(E − 1)/E², 0]; the minimum lies where every row has the same single expert, the maximum 0 where the mean
    over rows is uniform. A mean over the rows given: under gradient accumulation, of the micro-batch.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> batch_variance_literal(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(-0.2500)

    Reference: study 2's batch term of the variance loss, taken literally.
    """
    return -batch_variance(routing)
