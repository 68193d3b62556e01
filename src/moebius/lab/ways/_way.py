"""What a way gives, and the decorator that makes one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from moebius.lab.remedies._case import Obstacle

if TYPE_CHECKING:
    from moebius.lab.ways._pool import Pool


@dataclass(frozen=True)
class Composed:
    """A model that was made of trained networks, or beside them.

    Arguments:
        model: rows → what the task reads, in evaluation mode.
        text: what it does, for people.
    """

    model: nn.Module
    text: str


@dataclass(frozen=True)
class Way:
    """What is known of a way, as `way` declares it.

    Arguments:
        control: whether it is a model that mixtures have to beat, and not one of the networks' own: it is trained from
            the start, and never recommended.
    """

    control: bool = False


Function = TypeVar("Function", bound=Callable[["Pool"], Composed | Obstacle])


def way(control: bool = False) -> Callable[[Function], Function]:
    """Decorate a function Pool → Composed or Obstacle: it is a way of its name.

    Arguments:
        control: as in `Way`.

    Example:
        >>> @way()
        ... def nothing(pool):
        ...     return Obstacle("there is nothing to do")
        >>> nothing.way.control
        False

    Reference: ours.
    """

    def decorate(function: Function) -> Function:
        function.way = Way(control)  # type: ignore[attr-defined]
        return function

    return decorate
