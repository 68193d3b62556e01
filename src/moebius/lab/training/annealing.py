"""Routers whose temperature, noise or number of experts changes while they train."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.training.mixture_parts import router_places
from moebius.schedules import Schedule


class Annealing:
    """Sets attributes of a model's routers to their scheduled values for a moment of training, and resets them.

    Evaluation, checkpoints and the finished model have the routers as they were built: the recipe's `router` is the
    router at the end of training, and a schedule describes the values on the way to it.

    Arguments:
        model: its routers, each task's among them, and routers inside those, that have the attribute.
        schedules: attribute → value over epochs.

    Raises:
        ArgumentError: no router has the attribute.

    Reference: ours.
    """

    def __init__(self, model: nn.Module, schedules: Mapping[str, Schedule]):
        routers = [router for holder, place in router_places(model) for router in getattr(holder, place).modules()]
        self.schedules = schedules
        self.routers = {name: [router for router in routers if name in numbers_of(router)] for name in schedules}
        for name, matches in self.routers.items():
            if not matches:
                numbers = sorted({number for router in routers for number in numbers_of(router)})
                fix = did_you_mean(name, numbers) if numbers else "training: {router: {}}"
                raise ArgumentError(f"training.router.{name}", "the router has no such number", name, fix)

    def at(self, epoch: float) -> AbstractContextManager[None]:
        """Inside the block, the routers have the values of this epoch."""
        return self._set(epoch) if self.schedules else nullcontext()

    @contextmanager
    def _set(self, epoch: float) -> Iterator[None]:
        built = [(router, name, getattr(router, name)) for name, routers in self.routers.items() for router in routers]
        try:
            for router, name, _ in built:
                setattr(router, name, self.schedules[name](epoch))
            yield
        finally:
            for router, name, value in built:
                setattr(router, name, value)


def numbers_of(router: nn.Module) -> tuple[str, ...]:
    """Attributes of a router that a schedule may change: float arguments of its constructor, and k."""
    names = inspect.signature(type(router)).parameters
    values = {name: getattr(router, name, None) for name in names}
    return tuple(
        name for name, value in values.items() if isinstance(value, float) or (name == "k" and value is not None)
    )
