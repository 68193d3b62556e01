"""Experts that stay as they are while the gate trains."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from moebius.experts.adapter import Adapter
from moebius.lab.training.mixture_parts import MixtureLayer, mixture_layers
from moebius.layers.mixture import Mixture


class FrozenExperts:
    """Puts a model's experts into frozen adapters inside a block, so that their outputs can be cached.

    Arguments:
        model: its mixtures' experts, but for those that are mixtures or adapters or stand in a stack.
        freezes: False to leave all as they are.
    """

    def __init__(self, model: nn.Module, freezes: bool = True):
        self.places: list[tuple[nn.ModuleList, int, nn.Module]] = []
        for mixture in mixture_layers(model) if freezes else ():
            if not isinstance(mixture, Mixture) or not isinstance(mixture.experts, nn.ModuleList):
                continue  # a stack's experts compute as one, which costs less than looking them up one by one
            for number, expert in enumerate(mixture.experts):
                if not any(isinstance(module, Adapter | MixtureLayer) for module in expert.modules()):
                    self.places.append((mixture.experts, number, expert))
        self.adapters: dict[nn.Module, Adapter] = {}

    @contextmanager
    def wrapped(self) -> Iterator[None]:
        """Inside the block the experts stand in adapters."""
        try:
            self.adapters = {expert: Adapter(expert, frozen=True) for _, _, expert in self.places}
            self._put(self.adapters)
            yield
        finally:
            self._put({})

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Inside the block, within one of `wrapped`, the model has its own experts."""
        self._put({})
        try:
            yield
        finally:
            self._put(self.adapters)

    def _put(self, modules: dict[nn.Module, Adapter]) -> None:
        for experts, number, expert in self.places:
            experts[number] = modules.get(expert, expert)
