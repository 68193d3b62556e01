"""All experts on all rows, for executions that are made for routers that select."""

from collections.abc import Sequence

from torch import Tensor, nn

from moebius.execution.loop import loop
from moebius.execution.stacked import stacked, why_not
from moebius.routing import Routing
from moebius.stack import Stack


def every(experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Tensor, routing: Routing) -> Tensor:
    """The outputs (T, E, …), as one product where that is the loop's result and worth it."""
    return stacked(experts, x, routing) if why_not(experts, routing) is None else loop(experts, x, routing)
