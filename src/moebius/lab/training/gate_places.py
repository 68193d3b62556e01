"""Where the gates of a model stand, with their routers and the experts that they weigh."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.report.gate_names import gate_name
from moebius.layers.attentive_mixture import AttentiveMixture
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture
from moebius.layers.soft_moe import SoftMoE

# A module, and the attribute of it that holds another one.
Place = tuple[nn.Module, str]


@dataclass(frozen=True)
class GatePlace:
    """A gate of a model.

    Arguments:
        path: under which its routings are recorded.
        name: of the gate, such as "gate" or "experts.0.gate".
        layer: whose experts it weighs.
        experts: module paths of the experts, in the order of its scores.
        inside: name of the gate around it, and which expert of that gate it is inside; None for an outermost gate.
        gate_holder: the module and the attribute that hold it; None where it is more than one module.
        router_holder: those that hold its router; None where it has none.
        task: the task that it weighs experts for, of a layer with a gate for each; None for all.
    """

    path: str
    name: str
    layer: nn.Module
    experts: tuple[str, ...]
    inside: tuple[str, int] | None
    gate_holder: Place | None
    router_holder: Place | None
    task: str | None = None

    @property
    def count(self) -> int:
        """E, the number of its experts."""
        return len(self.experts)

    @property
    def gate(self) -> Any:
        """The gate as it is now; None where it is more than one module."""
        return None if self.gate_holder is None else getattr(*self.gate_holder)

    @property
    def router(self) -> Any:
        """Its router as it is now; None where it has none."""
        return None if self.router_holder is None else getattr(*self.router_holder)

    @property
    def is_learned(self) -> bool:
        """Whether gate or router has parameters; without any, weights follow a rule."""
        if self.gate_holder is None:
            return True
        modules = [module for module in (self.gate, self.router) if isinstance(module, nn.Module)]
        return any(True for module in modules for _ in module.parameters())

    def put(self, gate: nn.Module | None = None, router: nn.Module | None = None) -> None:
        """Put another gate, or another router, into the place of one; it gets the mode of the one before."""
        for holder, module in ((self.gate_holder, gate), (self.router_holder, router)):
            if holder is not None and module is not None:
                setattr(*holder, module.train(getattr(*holder).training))

    @property
    def is_single(self) -> bool:
        """Whether the layer has this gate alone, so that its experts may change."""
        return isinstance(self.layer, Mixture | PositionMixture)


def find_gates(model: nn.Module) -> list[GatePlace]:
    """All gates of a model with several experts or one, the outer ones first.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)])
        >>> (place,) = find_gates(nn.Sequential(moe))
        >>> place.name, place.experts, place.gate is moe.gate
        ('0.gate', ('0.experts.0', '0.experts.1'), True)
    """
    gates: list[GatePlace] = []
    for path, layer in model.named_modules():
        if isinstance(layer, MultiGateMixture | CGC):
            for task in layer.gates:
                name = _join(path, f"gates.{task}")
                experts = tuple(_join(path, expert) for expert in layer.expert_paths(task))
                holders = (layer.gates, task), (layer.router, task)
                gates.append(GatePlace(name, name, layer, experts, _around(path, gates), *holders, task))
            continue
        if isinstance(layer, AttentiveMixture):
            pool, count = "bodies", len(layer.bodies)
        elif isinstance(layer, Mixture | PositionMixture | SoftMoE):
            pool, count = "experts", len(layer.experts) if isinstance(layer, SoftMoE) else layer.count
        else:
            continue
        experts = tuple(_join(path, f"{pool}.{number}") for number in range(count))
        gate = (layer, "gate") if isinstance(layer, Mixture | PositionMixture) else None
        router = None if isinstance(layer, SoftMoE) else (layer, "router")
        gates.append(GatePlace(path, gate_name(path), layer, experts, _around(path, gates), gate, router))
    return gates


def find_gate(model: nn.Module, name: str) -> GatePlace:
    """The gate of this name.

    Raises:
        ArgumentError: there is none.
    """
    gates = {gate.name: gate for gate in find_gates(model)}
    if name not in gates:
        raise ArgumentError("gate", "names no gate of the model", name, did_you_mean(name, gates))
    return gates[name]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".removeprefix(".")


def _around(path: str, gates: list[GatePlace]) -> tuple[str, int] | None:
    """The innermost of the earlier gates of which an expert contains the module at a path."""
    for gate in reversed(gates):
        for number, expert in enumerate(gate.experts):
            if path.startswith(f"{expert}.") or path == expert:
                return gate.name, number
    return None
