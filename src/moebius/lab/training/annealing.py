"""Routers whose temperature, noise or number of experts changes while they train."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.layers.mixture import Mixture
from moebius.schedules import Schedule


class Annealing:
    """Gives attributes of a model's routers their values for a moment of training, and takes them back.

    Evaluation, checkpoints and the finished model know the router as it was built: what a schedule leads to is the
    recipe's own `router`, and what it leads through is the way there.

    Arguments:
        model: its mixtures' routers, and routers inside those, that have the attribute.
        schedules: attribute → value over epochs.

    Raises:
        ArgumentError: no router has the attribute.

    Reference: ours.
    """

    def __init__(self, model: nn.Module, schedules: Mapping[str, Schedule]):
        mixtures = [part for part in model.modules() if isinstance(part, Mixture)]
        routers = [router for mixture in mixtures for router in mixture.router.modules()]
        self.schedules = schedules
        self.routers = {name: [one for one in routers if name in numbers_of(one)] for name in schedules}
        for name, found in self.routers.items():
            if not found:
                known = sorted({number for one in routers for number in numbers_of(one)})
                fix = did_you_mean(name, known) if known else "it has no number to change"
                raise ArgumentError(f"training.router.{name}", "the router has no such number", name, fix)

    @contextmanager
    def at(self, epoch: float) -> Iterator[None]:
        """Inside the block, the routers are those of this moment."""
        if not self.schedules:
            yield
            return
        kept = [(one, name, getattr(one, name)) for name, found in self.routers.items() for one in found]
        try:
            for one, name, _ in kept:
                setattr(one, name, self.schedules[name](epoch))
            yield
        finally:
            for one, name, value in kept:
                setattr(one, name, value)


def numbers_of(router: nn.Module) -> tuple[str, ...]:
    """What a schedule may change of a router: arguments of its constructor that are amounts, and k."""
    given = inspect.signature(type(router)).parameters
    own = {name: getattr(router, name, None) for name in given}
    return tuple(name for name, value in own.items() if isinstance(value, float) or (name == "k" and value is not None))
