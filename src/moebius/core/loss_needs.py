"""What a gate loss needs besides a routing's weights: the loss declares it; objectives, recipes and tests read it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Loss = TypeVar("Loss", bound=Callable[..., Any])


@dataclass(frozen=True)
class LossNeeds:
    """What a loss needs of a routing, of its model and of the training.

    Arguments:
        distribution: whether the rows of `Routing.probs` must be distributions over the experts (no relu or elu gates).
        aux: keys of `Routing.aux` that the loss reads; a router or a gate must set them.
        expert_losses: whether the loss has an argument `expert_losses`, each expert's loss on each row (T, E). Then all
            experts run on all rows, whatever the router selects.
        classes: whether the experts' outputs must be logits of classes.

    Example:
        >>> LossNeeds(aux=("load",)).aux
        ('load',)
    """

    distribution: bool = False
    aux: tuple[str, ...] = ()
    expert_losses: bool = False
    classes: bool = False


def needs(
    distribution: bool = False, aux: tuple[str, ...] = (), expert_losses: bool = False, classes: bool = False
) -> Callable[[Loss], Loss]:
    """Decorate a gate loss to declare what it needs.

    Arguments:
        distribution, aux, expert_losses, classes: as in `LossNeeds`.

    Example:
        >>> @needs(aux=("load",))
        ... def load_spread(routing):
        ...     return routing.aux["load"].var()
        >>> loss_needs(load_spread).aux
        ('load',)

    Reference: ours.
    """

    def decorate(loss: Loss) -> Loss:
        loss.needs = LossNeeds(distribution, aux, expert_losses, classes)  # type: ignore[attr-defined]
        return loss

    return decorate


def loss_needs(loss: Callable[..., Any]) -> LossNeeds:
    """The needs that a loss declares; a loss without a declaration needs what its parameters name.

    Arguments:
        loss: the function, possibly with keywords bound by `functools.partial`.
    """
    function = loss
    while hasattr(function, "func"):
        function = function.func  # type: ignore[attr-defined]
    declared = getattr(function, "needs", None)
    if isinstance(declared, LossNeeds):
        return declared
    return LossNeeds(expert_losses="expert_losses" in inspect.signature(loss).parameters)
