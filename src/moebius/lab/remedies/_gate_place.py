"""Where the gate of a name, its router and its experts stand in a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.report.gate_names import gate_name
from moebius.lab.training.mixture_parts import MixtureLayer, gate_experts
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture


@dataclass(frozen=True)
class GatePlace:
    """A gate in a model.

    Arguments:
        path: that it records under.
        layer: whose experts it weighs.
        gates: the module that holds the gate, under `name`.
        routers: the module that holds its router, under `router_name`.
        count: E, the number of its experts.
    """

    path: str
    layer: nn.Module
    gates: nn.Module
    name: str
    routers: nn.Module
    router_name: str
    count: int

    @property
    def gate(self) -> nn.Module:
        """The gate."""
        return getattr(self.gates, self.name)

    @property
    def router(self) -> Any:
        """Its router."""
        return getattr(self.routers, self.router_name)

    def put(self, gate: nn.Module | None = None, router: nn.Module | None = None) -> None:
        """Put another gate, or another router, into the place."""
        if gate is not None:
            setattr(self.gates, self.name, gate.train(self.gate.training))
        if router is not None:
            setattr(self.routers, self.router_name, router.train(self.router.training))

    @property
    def is_single(self) -> bool:
        """Whether the layer has this gate alone, so that its experts may change."""
        return isinstance(self.layer, Mixture | PositionMixture)

    @classmethod
    def find(cls, model: nn.Module, gate: str) -> "GatePlace":
        """The place of the gate of this name.

        Raises:
            ArgumentError: there is none.

        Example:
            >>> import moebius as mb
            >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)])
            >>> GatePlace.find(moe, "gate").gate is moe.gate
            True
        """
        places = dict(cls.all(model))
        if gate not in places:
            raise ArgumentError("gate", "names no gate of the model", gate, did_you_mean(gate, places))
        return places[gate]

    @classmethod
    def all(cls, model: nn.Module) -> Iterator[tuple[str, "GatePlace"]]:
        """Every gate of a model by its name."""
        counts, modules = gate_experts(model), dict(model.named_modules(remove_duplicate=False))
        for path, count in counts.items():
            layer = modules[path]
            if isinstance(layer, Mixture | PositionMixture):
                yield gate_name(path), cls(path, layer, layer, "gate", layer, "router", count)
                continue
            around, _, name = path.rpartition("gates.")
            layer = modules[around.removesuffix(".")]
            assert isinstance(layer, MultiGateMixture | CGC)
            named = gate_name(path) if isinstance(modules[path], MixtureLayer) else path
            yield named, cls(path, layer, layer.gates, name, layer.router, name, count)
