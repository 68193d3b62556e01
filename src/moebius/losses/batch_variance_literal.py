"""The batch term of the variance loss with the sign as published: it rewards collapse."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses.batch_variance import batch_variance


@needs(distribution=True)
def batch_variance_literal(routing: Routing) -> Float[Tensor, ""]:
    """The negated `batch_variance`: smallest when the whole batch goes to one expert; the wrong sign, kept for study.

    loss = −Var_E(mean_i G(x_i))

    The study defines its variance loss "similarly" to the entropy loss and reports that both gates collapsed onto one
    expert. Variance over experts is low where entropy is high, so putting variance literally in entropy's place flips
    the sign and rewards that collapse. This term tests whether the sign explains the published result; to balance
    experts, use `batch_variance`.

    Range [−(E − 1)/E², 0]; the minimum lies where every row gives all its probability to the same expert, the maximum 0
    where the mean over rows is uniform. The mean is over the rows of one call: under gradient accumulation, over the
    micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> batch_variance_literal(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(-0.2500)

    Reference: study 2's batch term of the variance loss, taken literally.
    """
    return -batch_variance(routing)
