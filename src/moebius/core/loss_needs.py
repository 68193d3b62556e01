"""What a gate loss needs beside a routing's weights: declared by the loss, read by objectives, recipes and tests."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Loss = TypeVar("Loss", bound=Callable[..., Any])


@dataclass(frozen=True)
class LossNeeds:
    """What a loss needs of a routing, of its model and of the training.

    Arguments:
        distribution: rows of `Routing.probs` that are distributions over the experts (no relu or elu gates).
        aux: keys of `Routing.aux` that it reads: a router or a gate has to give them.
        expert_losses: each expert's own loss on each row, (T, E), as an argument of this name: then all experts run on
            all rows, whatever the router chooses.

    Example:
        >>> LossNeeds(aux=("load",)).aux
        ('load',)
    """

    distribution: bool = False
    aux: tuple[str, ...] = ()
    expert_losses: bool = False


def needs(distribution: bool = False, aux: tuple[str, ...] = (), expert_losses: bool = False) -> Callable[[Loss], Loss]:
    """Decorate a gate loss: declare what it needs; see `LossNeeds`.

    Example:
        >>> @needs(aux=("load",))
        ... def load_spread(routing):
        ...     return routing.aux["load"].var()
        >>> loss_needs(load_spread).aux
        ('load',)

    Reference: ours.
    """

    def decorate(loss: Loss) -> Loss:
        loss.needs = LossNeeds(distribution, aux, expert_losses)  # type: ignore[attr-defined]
        return loss

    return decorate


def loss_needs(loss: Callable[..., Any]) -> LossNeeds:
    """What a loss declares; for one that declares nothing, what its parameters tell.

    Arguments:
        loss: the function, also with keywords bound by `functools.partial`.
    """
    function = loss
    while hasattr(function, "func"):
        function = function.func  # type: ignore[attr-defined]
    declared = getattr(function, "needs", None)
    if isinstance(declared, LossNeeds):
        return declared
    return LossNeeds(expert_losses="expert_losses" in inspect.signature(loss).parameters)
