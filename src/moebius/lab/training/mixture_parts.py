"""Which modules and parameters of a model are gates, and which are experts."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from torch import nn

from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.layers.attentive_mixture import AttentiveMixture
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.ple import PLE
from moebius.layers.position_mixture import PositionMixture
from moebius.layers.soft_moe import SoftMoE

MixtureLayer = Mixture | AttentiveMixture | SoftMoE | MultiGateMixture | CGC | PositionMixture


def mixture_layers(model: nn.Module) -> list[MixtureLayer]:
    """All mixtures of a model, itself included, the outer ones first."""
    return [module for module in model.modules() if isinstance(module, MixtureLayer)]


def gate_modules(layer: MixtureLayer) -> list[nn.Module]:
    """The modules that score the experts, without the router."""
    if isinstance(layer, SoftMoE):
        return []
    if isinstance(layer, MultiGateMixture | CGC):
        return list(layer.gates.values())
    return [layer.gate, layer.query, layer.key] if isinstance(layer, AttentiveMixture) else [layer.gate]


def gate_experts(model: nn.Module) -> dict[str, int]:
    """The paths that a model's routings are recorded under, each with the number of experts.

    Example:
        >>> from moebius.layers.multi_gate_mixture import MultiGateMixture
        >>> gates = {"click": nn.Linear(4, 3), "price": nn.Linear(4, 3)}
        >>> gate_experts(nn.Sequential(MultiGateMixture(gates, [nn.Linear(4, 6) for _ in range(3)])))
        {'0.gates.click': 3, '0.gates.price': 3}
    """
    counts = {}
    for path, layer in model.named_modules():
        if isinstance(layer, Mixture | PositionMixture):
            counts[path] = layer.count
        elif isinstance(layer, MultiGateMixture | CGC):
            counts |= {f"{path}.gates.{name}".removeprefix("."): len(layer.expert_paths(name)) for name in layer.gates}
    return counts


def router_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the routers of gates stand: a module and the attribute of it, one for each gate."""
    places: list[tuple[nn.Module, str]] = []
    for layer in model.modules():
        if isinstance(layer, Mixture | PositionMixture):
            places.append((layer, "router"))
        elif isinstance(layer, MultiGateMixture | CGC):
            places += [(layer.router, name) for name in layer.router]
    return places


def untrained_gates(model: nn.Module) -> list[nn.Module]:
    """The gates that no router lets learn from the task, such as those of `argmax`."""
    gates: list[nn.Module] = []
    for layer in model.modules():
        if isinstance(layer, Mixture | PositionMixture):
            gates += [] if layer.router.trains_gate else [layer.gate]
        elif isinstance(layer, MultiGateMixture | CGC):
            gates += [gate for name, gate in layer.gates.items() if not layer.router[name].trains_gate]
    return gates


def chooses_experts(model: nn.Module) -> bool:
    """Whether the model is itself a mixture or a layer of several gates, and a gate has several experts."""
    layers = Mixture | PositionMixture | MultiGateMixture | CGC | PLE
    return isinstance(model, layers) and any(count > 1 for count in gate_experts(model).values())


def gate_parameters(layer: MixtureLayer) -> list[nn.Parameter]:
    """The parameters that decide the weights of the experts: of gate and router, of attention, or of the slots."""
    if isinstance(layer, SoftMoE):
        return [layer.phi] if layer.scale is None else [layer.phi, layer.scale]
    return [parameter for module in (*gate_modules(layer), layer.router) for parameter in module.parameters()]


def expert_modules(layer: MixtureLayer) -> Iterable[nn.Module]:
    """The experts one by one, or the stack of them; and the towers, which learn with them."""
    if isinstance(layer, AttentiveMixture):
        return [*layer.bodies, *layer.heads]
    experts = chain.from_iterable([pool] if isinstance(pool, Stack) else pool for pool in expert_pools(layer))
    return [*experts, *towers_of(layer)]


def expert_pools(layer: MixtureLayer) -> list[Any]:
    """The lists and stacks of experts: of a CGC those of each task, and the shared ones."""
    return [*layer.experts.values(), layer.shared] if isinstance(layer, CGC) else [layer.experts]


def towers_of(layer: MixtureLayer) -> list[nn.Module]:
    """The towers of the tasks; none for other layers."""
    return [*(layer.towers or {}).values()] if isinstance(layer, MultiGateMixture | CGC) else []


def parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of a model as `gate` (those that weigh experts in all its mixtures) and `experts` (all others).

    The experts' part also holds what surrounds the mixtures, such as a body before and a head behind them. Parameters
    of frozen adapters belong to neither part: nothing ever trains them.
    """
    frozen = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Adapter) and module.frozen
        for parameter in module.parameters()
    }
    gates = {id(parameter) for layer in mixture_layers(model) for parameter in gate_parameters(layer)}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in frozen]
    return {
        "gate": [parameter for parameter in parameters if id(parameter) in gates],
        "experts": [parameter for parameter in parameters if id(parameter) not in gates],
    }


def trainable_parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """`parts` without the parameters that do not require a gradient: whoever froze them by hand keeps them frozen."""
    return {
        name: [parameter for parameter in parameters if parameter.requires_grad]
        for name, parameters in parts(model).items()
    }
