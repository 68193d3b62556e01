"""The sample term of the variance loss with the sign as published: it rewards indecision."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses.sample_variance import sample_variance


@needs(distribution=True)
def sample_variance_literal(routing: Routing) -> Float[Tensor, ""]:
    """The negated `sample_variance`: smallest when every row is uniform over experts; the wrong sign, kept for study.

    loss = mean_i Var_E(G(x_i))

    The study defines its variance loss "similarly" to the entropy loss and reports that both gates collapsed onto one
    expert. Putting variance literally in entropy's place gives this sign, together with that of
    `batch_variance_literal`; the pair tests whether the sign explains the published result. To make rows decide, use
    `sample_variance`.

    Range [0, (E − 1)/E²]; the minimum 0 lies where every row is uniform, the maximum where every row puts all
    probability on one expert.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> sample_variance_literal(Soft()(torch.tensor([[0.0, -torch.inf]])))
        tensor(0.2500)

    Reference: study 2's sample term of the variance loss, taken literally.
    """
    return -sample_variance(routing)
