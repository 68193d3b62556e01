"""Executions that add up what the chosen experts say of a row by themselves, with the router's weights."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from moebius.routing import Routing

Execution = Callable[..., Tensor]
Sum = Callable[..., Tensor | None]


def sums_by(weighted_sum: Sum) -> Callable[[Execution], Execution]:
    """Gives an execution the function that mixtures call in its place where the combine is a plain weighted sum.

    That function has the execution's arguments, gives (T, …), and spares the outputs of the assignments. It may give
    None, for that this time the execution itself is to be called.
    """

    def mark(execution: Execution) -> Execution:
        execution.weighted_sum = weighted_sum  # type: ignore[attr-defined]
        return execution

    return mark


def summing(execution: Any, routing: Routing) -> Sum | None:
    """That function, for a routing that selects with one weight for each assignment; None where there is none."""
    if routing.selection is None or routing.head_weights is not None:
        return None
    return getattr(execution, "weighted_sum", None)
