"""Which of several inputs of a row are the gate's, and which the experts'."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from moebius.core.module_outputs import describe_output
from moebius.core.stack import Stack
from moebius.execution._remote_expert import RemoteExpert
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.layers._expert_pools import find_pool

# The names that say it whatever parameters the modules have.
PART_NAMES = ("gate", "experts")


def part_inputs(gate: nn.Module, experts: nn.Module, x: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The input of the gate and that of the experts.

    They are those named "gate" and "experts"; where the names are others, those that the forward of the gate, and of
    every expert, has a parameter for. An adapter has the parameters of its network.

    Arguments:
        gate: of a mixture.
        experts: a `ModuleList` or a stack.
        x: name → tensor, all with one first axis.

    Raises:
        ArgumentError: nothing tells whose an input is, one is no tensor, or their first axes differ.
    """
    pool = find_pool(experts)
    modules = [pool.template] if isinstance(pool, Stack) else [*pool]
    if set(x) == set(PART_NAMES):
        gate_x, expert_x = (x[name] for name in PART_NAMES)
    else:
        of_gate, of_experts = _name_of("gate", [gate], x), _name_of("experts", modules, x)
        gate_x, expert_x = x[of_gate], x[of_experts]
    for name, value in (("gate", gate_x), ("experts", expert_x)):
        if not isinstance(value, Tensor):
            rule = f"needs one tensor for the {name}; further inputs of a row are context"
            fix = 'moe({"gate": meta, "experts": image}, context={"more": more})'
            raise ArgumentError("x", rule, describe_output(value), fix)
    if gate_x.shape[:1] != expert_x.shape[:1]:
        rule = "needs as many rows for the gate as for the experts"
        value = (tuple(gate_x.shape), tuple(expert_x.shape))
        raise ArgumentError("x", rule, value, 'moe({"gate": meta[:100], "experts": image[:100]})')
    return gate_x, expert_x


def _name_of(part: str, modules: list[nn.Module], x: Mapping[str, Any]) -> str:
    """The one input that all these modules have a parameter for."""
    names = [name for name in x if all(name in _parameters(module) for module in modules)]
    if len(names) == 1:
        return names[0]
    owner = {"gate": "the gate's forward", "experts": "every expert's forward"}[part]
    rule = f'needs inputs "gate" and "experts", or one by the name of a parameter of {owner}'
    fix = 'moe({"gate": x["meta"], "experts": x["image"]}), or mb.fit(…, inputs={"gate": "meta", "experts": "image"})'
    raise ArgumentError("x", rule, [*x], fix)


def _parameters(module: nn.Module) -> list[str]:
    while isinstance(module, Adapter | RemoteExpert):
        module = module.network
    return [name for name in inspect.signature(module.forward).parameters if name != "context"]
