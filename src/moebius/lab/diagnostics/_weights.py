"""A routing with other weights."""

from dataclasses import replace

import torch
from torch import Tensor

from moebius.core.routing import Routing


def heads_of(routing: Routing) -> Tensor:
    """The weights as (T, H, E, C)."""
    return routing.weights[:, None, :, None] if routing.head_weights is None else routing.head_weights


def with_weights(routing: Routing, heads: Tensor) -> Routing:
    """The routing with other weights (T, H, E, C), and without a selection."""
    weights = heads.sum(1).mean(-1)
    head_weights = None if routing.head_weights is None else heads
    return replace(
        routing,
        weights=weights,
        log_weights=weights.log(),
        head_weights=head_weights,
        selection=None,
        straight_through=False,
    )


def without_expert(routing: Routing, expert: int) -> Routing:
    """The routing in which the other experts of a row share the weight of one; the next best takes rows of it alone.

    All experts' outputs are expected: there is no selection.

    Arguments:
        routing: of a batch.
        expert: the number of the one that is left out.

    Example:
        >>> import moebius as mb
        >>> without_expert(mb.routers.Soft()(torch.zeros(1, 3)), 1).weights
        tensor([[0.5000, 0.0000, 0.5000]])
    """
    heads = heads_of(routing)
    total = heads.sum(2, keepdim=True)
    weights = heads.clone()
    weights[:, :, expert] = 0
    probs = routing.probs.clone()
    probs[:, expert] = -torch.inf
    following = torch.zeros_like(routing.weights).scatter(1, probs.argmax(1, keepdim=True), 1.0)
    following = following[:, None, :, None].expand_as(weights)
    weights = torch.where(weights.any(2, keepdim=True), weights, following)
    return with_weights(routing, weights * total / weights.sum(2, keepdim=True))
