"""Several gates, by name, over pools of experts: what `MultiGateMixture` and `CGC` share."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from moebius.core.gate_call import ScoredRows, score_rows
from moebius.core.recording import is_recording_outputs, record_routing
from moebius.core.routing import Router, Routing, Selection
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._running import checked_output, with_gate_gradients
from moebius.kit.errors import ArgumentError
from moebius.layers._expert_pools import PoolOutputs, drop_selection, find_pool, run_pool
from moebius.layers.attentive_mixture import AttentiveMixture
from moebius.layers.mixture import Mixture
from moebius.layers.soft_moe import SoftMoE
from moebius.routers.soft import Soft

Modules = Mapping[str, nn.Module] | nn.ModuleDict


@dataclass(frozen=True)
class GateCall:
    """A gate's part in a call.

    Arguments:
        gate: the gate; routings are recorded of it.
        router: of the gate.
        rows: the rows, with the gate's scores.
        pools: the names of the pools whose experts the gate scores, in the order of its scores.
    """

    gate: nn.Module
    router: Router
    rows: ScoredRows
    pools: Sequence[str]


def check_names(argument: str, modules: Any) -> dict[str, Any]:
    """The entries of a mapping from names to modules.

    Raises:
        ArgumentError: no mapping, an empty one, or a name that no part of a module can have.
    """
    example = f'{argument}={{"click": …, "buy": …}}'
    if not isinstance(modules, Mapping | nn.ModuleDict):
        raise ArgumentError(argument, "needs a mapping from names of tasks", type(modules).__name__, example)
    if not len(modules):
        raise ArgumentError(argument, "needs at least one task", {}, example)
    reserved = nn.ModuleDict()
    for name in modules:
        if not isinstance(name, str) or not name or "." in name or hasattr(reserved, name):
            rule = "needs names that a part of a module can have: not empty, no dot, none of nn.ModuleDict's own"
            raise ArgumentError(argument, rule, name, f"{f'{name}'.replace('.', '_')}_task")
    return dict(modules.items())


def check_same_names(argument: str, names: Iterable[str], expected: Iterable[str], source: str) -> None:
    """Check that a mapping has an entry for each of the `expected` names, and no other.

    Arguments:
        argument: of the mapping.
        names: its names.
        expected: the names that it needs.
        source: the argument that they come from, for the error.

    Raises:
        ArgumentError: a name is missing or unknown.
    """
    names, expected = list(names), list(expected)
    if set(names) != set(expected):
        rule = f"needs an entry for each of {', '.join(expected)}, the names of {source}, and no other"
        raise ArgumentError(argument, rule, names, f"{argument}={{{', '.join(f'{name!r}: …' for name in expected)}}}")


def make_gates(gates: Any) -> nn.ModuleDict:
    """The gates by name.

    Raises:
        ArgumentError: one module is the gate of two names, or is a mixture: a log tells routings by paths.
    """
    modules = check_names("gates", gates)
    paths: dict[int, str] = {}
    for name, gate in modules.items():
        first = paths.setdefault(id(gate), name)
        if first != name:
            rule = f"needs a module of its own for each name: a log tells routings by it, and {first!r} has the same"
            raise ArgumentError(f"gates.{name}", rule, type(gate).__name__, "copy.deepcopy(gate)")
        if isinstance(gate, Mixture | AttentiveMixture | SoftMoE):
            rule = "needs a gate whose own path in a log is free, and a mixture records its routings there"
            raise ArgumentError(f"gates.{name}", rule, type(gate).__name__, "nn.Sequential(gate)")
    return nn.ModuleDict(modules)


def make_routers(router: Any, gates: nn.ModuleDict) -> nn.ModuleDict:
    """A router for each gate: `Soft` for None, copies of a single router, or those of a mapping by name."""
    if isinstance(router, Mapping | nn.ModuleDict):
        check_same_names("router", router, gates, "gates")
        return nn.ModuleDict({name: router[name] for name in gates})
    # A copy for each: a router may have parameters, and counts that balance its own gate.
    return nn.ModuleDict({name: Soft() if router is None else copy.deepcopy(router) for name in gates})


def router_named(routers: nn.ModuleDict, name: str) -> Router:
    """The router of the gate of this name."""
    return cast(Router, routers[name])


def make_towers(towers: Any, tasks: Iterable[str]) -> nn.ModuleDict | None:
    """The towers by task; None where there are none."""
    if towers is None:
        return None
    modules, tasks = check_names("towers", towers), list(tasks)
    check_same_names("towers", modules, tasks, "gates")
    return nn.ModuleDict({task: modules[task] for task in tasks})


def make_pool(argument: str, experts: Any) -> nn.ModuleList | Stack:
    """The experts as a `ModuleList`, or the stack that they are.

    Raises:
        ArgumentError: there are none.
    """
    pool = experts if isinstance(experts, Stack) else nn.ModuleList(experts)
    if not len(pool):
        raise ArgumentError(argument, "needs at least one expert", [], "[expert, another]")
    return pool


def score_gate(
    name: str,
    gate: nn.Module,
    router: Router,
    experts: int,
    x: Tensor,
    context: Mapping[str, Tensor] | None,
    mask: Tensor | None,
) -> ScoredRows:
    """`score_rows` for the gate of this name; errors name it.

    Raises:
        ArgumentError: as in `score_rows`.
    """
    width = router.gate_outputs(experts)
    rule = f"must give one score for each of its {experts} experts"
    if width != experts:
        rule = f"must give {width} numbers a row, which {type(router).__name__} needs for its {experts} experts"
    try:
        return score_rows(gate, x, context, mask, width, rule, f"gate=mb.gates.Linear(features, experts={width})")
    except ArgumentError as error:
        if error.argument != "gate":
            raise
        fix = None if error.fix is None else error.fix.replace("gate=", f"gates[{name!r}] = ")
        raise ArgumentError(f"gates.{name}", error.rule, error.value, fix) from None


def check_batch_axes(scored: Mapping[str, ScoredRows]) -> ScoredRows:
    """The first gate's rows.

    Raises:
        ArgumentError: another gate keeps other batch axes.
    """
    first, *others = scored
    for name in others:
        if scored[name].batch_shape != scored[first].batch_shape:
            rule = f"must keep the batch axes that gates.{first} keeps, {tuple(scored[first].batch_shape)}"
            fix = "gates that all see rows, or all see tokens"
            raise ArgumentError(f"gates.{name}", rule, tuple(scored[name].batch_shape), fix)
    return scored[first]


def mix_pools(
    calls: Mapping[str, GateCall],
    pools: Mapping[str, tuple[nn.Module, Tensor]],
    combine: Callable[..., Tensor],
    execution: Execution,
    training: bool,
) -> dict[str, Tensor]:
    """Each gate's combined outputs (T, …); every expert runs once, on the rows that some gate selected.

    Arguments:
        calls: name → gate.
        pools: name → experts, and the rows that they see.
        combine: (outputs, routing) → y.
        execution: how the experts run.
        training: whether the layer is in training mode.

    Raises:
        ArgumentError: experts of two pools of a gate give rows of other shapes.
    """
    counts = {pool: len(find_pool(experts)) for pool, (experts, _) in pools.items()}
    routings = {name: call.rows.route(call.router, call.rows.scores) for name, call in calls.items()}
    outputs = {}
    for pool, (experts, x) in pools.items():
        demands = [
            _demand(call, routings[name].selection, pool, counts) for name, call in calls.items() if pool in call.pools
        ]
        outputs[pool] = run_pool(experts, execution, x, demands)
    results = {}
    for name, call in calls.items():
        y = _combine(call.gate, routings[name], _of_gate(call, outputs), combine)
        results[name] = with_gate_gradients(y, call.router, [call.gate], training)
    return results


def apply_towers(towers: nn.ModuleDict | None, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each task's tower on its rows; values without a tower stay.

    Raises:
        ArgumentError: a tower returns something else than one tensor with an entry for each row.
    """
    if towers is None:
        return dict(values)
    return {
        name: checked_output(name, towers[name], x, "towers", "tower") if name in towers else x
        for name, x in values.items()
    }


def _demand(call: GateCall, selection: Selection | None, pool: str, counts: Mapping[str, int]) -> Selection | None:
    """A gate's selection of a pool's experts, numbered from 0; None where it needs every expert on every row."""
    if selection is None or is_recording_outputs(call.gate):
        return None
    first = sum(counts[before] for before in call.pools[: call.pools.index(pool)])
    expert_A = selection.expert_A - first
    inside = (expert_A >= 0) & (expert_A < counts[pool])
    return replace(selection, expert_A=expert_A.clamp(0, counts[pool] - 1), kept_A=selection.kept_A & inside)


def _of_gate(call: GateCall, outputs: Mapping[str, PoolOutputs]) -> list[PoolOutputs]:
    """The outputs of a gate's pools, whose shapes agree."""
    first, *others = call.pools
    for pool in others:
        shape, expected = outputs[pool].flat.shape[1:], outputs[first].flat.shape[1:]
        if shape != expected:
            rule = f"gives rows of shape {tuple(shape)} where {first} gives rows of shape"
            raise ArgumentError(pool, rule, tuple(expected), "a last layer that makes all outputs alike")
    return [outputs[pool] for pool in call.pools]


def _combine(gate: nn.Module, routing: Routing, parts: Sequence[PoolOutputs], combine: Callable[..., Tensor]) -> Tensor:
    """Record a gate's routing, and merge the outputs of its experts."""
    selection = routing.selection
    if selection is not None and not all(part.is_complete for part in parts):
        record_routing(gate, routing)
        return combine(_select_outputs(parts, selection), routing)
    outputs = torch.cat([part.values for part in parts], 1) if len(parts) > 1 else parts[0].values
    if is_recording_outputs(gate):
        routing = replace(routing, outputs=outputs)
    record_routing(gate, routing)
    return combine(*drop_selection(outputs, routing))


def _select_outputs(parts: Sequence[PoolOutputs], selection: Selection) -> Tensor:
    """The output of each assignment, whose experts are those of several pools one after another; 0 where dropped."""
    flats = [part.flat for part in parts]
    index_A, first, place = torch.zeros_like(selection.row_A), 0, 0
    for part, flat in zip(parts, flats, strict=True):
        expert_A = selection.expert_A - first
        inside = (expert_A >= 0) & (expert_A < part.count)
        index_A = torch.where(inside, place + part.locate(selection.row_A, expert_A.clamp(0, part.count - 1)), index_A)
        first, place = first + part.count, place + flat.shape[0]
    values = (torch.cat(flats) if len(flats) > 1 else flats[0]).index_select(0, index_A)
    return torch.where(selection.kept_A.view(-1, *[1] * (values.ndim - 1)), values, 0)
