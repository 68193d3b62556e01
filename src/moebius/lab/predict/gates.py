"""The gates of a model: where they stand, which experts they weigh, and how they weigh each row of one pass."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.recording import Log
from moebius.core.routing import Router, Routing
from moebius.execution.auto import Auto
from moebius.lab.report.gate_names import gate_name
from moebius.lab.training.evaluation import store_by_row, tokens_per_row
from moebius.layers.attentive_mixture import AttentiveMixture
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture, executed_by
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture
from moebius.layers.soft_moe import SoftMoE
from moebius.routers._selecting import single_selection


@dataclass(frozen=True)
class GatePlace:
    """A gate of a model.

    Arguments:
        path: under which its routings are recorded.
        name: of the gate, such as "gate" or "experts.0.gate".
        experts: module paths of the experts, in the order of its scores.
        inside: name of the gate around it, and which expert of that gate it is inside; None for an outermost gate.
        router: the module and the attribute that hold its router; None where it has none.
        task: the task that it weighs experts for, of a layer with a gate for each; None for all.
    """

    path: str
    name: str
    experts: tuple[str, ...]
    inside: tuple[str, int] | None
    router: tuple[nn.Module, str] | None
    task: str | None = None


def find_gates(model: nn.Module) -> list[GatePlace]:
    """All gates of a model with several experts or one, the outer ones first."""
    gates: list[GatePlace] = []
    for path, layer in model.named_modules():
        if isinstance(layer, MultiGateMixture | CGC):
            for name in layer.gates:
                gate = _join(path, f"gates.{name}")
                experts = tuple(_join(path, expert) for expert in layer.expert_paths(name))
                gates.append(GatePlace(gate, gate, experts, _around(path, gates), (layer.router, name), name))
            continue
        if isinstance(layer, AttentiveMixture):
            pool, count = "bodies", len(layer.bodies)
        elif isinstance(layer, Mixture | PositionMixture | SoftMoE):
            pool, count = "experts", len(layer.experts) if isinstance(layer, SoftMoE) else layer.count
        else:
            continue
        experts = tuple(_join(path, f"{pool}.{number}") for number in range(count))
        router = None if isinstance(layer, SoftMoE) else (layer, "router")
        gates.append(GatePlace(path, gate_name(path), experts, _around(path, gates), router))
    return gates


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".removeprefix(".")


def _around(path: str, gates: list[GatePlace]) -> tuple[str, int] | None:
    """The innermost of the earlier gates of which an expert contains the module at a path."""
    for gate in reversed(gates):
        for number, expert in enumerate(gate.experts):
            if path.startswith(f"{expert}.") or path == expert:
                return gate.name, number
    return None


@dataclass(frozen=True)
class GateTable:
    """How a gate weighed the rows of a pass.

    Arguments:
        place: the gate.
        weights: NaN for rows that did not reach it; of several tokens or positions of a row, the mean.
        scores: what it ranked the experts by: its distribution, or activations; likewise.
        is_distribution: whether these are probabilities.
        positions: tokens or positions of a row.
        class_weights: where a gate weighs each class by itself.
    """

    place: GatePlace
    weights: Float[Tensor, "T E"]
    scores: Float[Tensor, "T E"]
    is_distribution: bool
    positions: int
    class_weights: Float[Tensor, "T E C"] | None = None


def gate_tables(model: nn.Module, log: Log, rows: int) -> list[GateTable]:
    """The gates of a model with what they did for the rows of one pass; those that no row reached have NaN.

    Arguments:
        model: that was recorded.
        log: the record.
        rows: T.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    tables = []
    for place in find_gates(model):
        calls = log.get(place.path, [])
        weights = torch.full((1, rows, len(place.experts)), torch.nan)
        scores, tokens, class_weights = weights.clone(), 1, None
        if calls:
            tokens = tokens_per_row(place.path, log, rows, modules)
        for routing in calls:
            for table, values in ((weights, routing.weights), (scores, routing.probs)):
                store_by_row(table, values.float().cpu(), _cpu(routing.rows), torch.arange(rows), 1, tokens)
            if routing.head_weights is not None and routing.head_weights.shape[-1] > 1 and tokens == 1:
                class_weights = _by_class(class_weights, routing, rows)
        is_distribution = all(routing.distribution for routing in calls)
        tables.append(GateTable(place, weights[0], scores[0], is_distribution, tokens, class_weights))
    return tables


def _by_class(table: Tensor | None, routing: Routing, rows: int) -> Tensor:
    assert routing.head_weights is not None
    by_class = routing.head_weights.sum(1).float().cpu()
    table = torch.full((rows, *by_class.shape[1:]), torch.nan) if table is None else table
    numbers = torch.arange(rows) if routing.rows is None else routing.rows.cpu()
    table[numbers] = by_class
    return table


def _cpu(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.cpu()


class SentTo(Router):
    """Sends every row to one expert with weight 1, whatever another router says.

    Arguments:
        router: the other router.
        expert: number of the expert.

    Reference: ours.
    """

    trains_gate = False

    def __init__(self, router: Router, expert: int):
        super().__init__()
        self.router, self.expert, self.needs_keys = router, expert, router.needs_keys

    def gate_outputs(self, experts: int) -> int:
        """The number that the other router takes."""
        return self.router.gate_outputs(experts)

    def forward(self, scores: Float[Tensor, "T G"], keys: Any = None) -> Routing:
        """Route every row to the expert."""
        routing = self.router(scores, keys) if self.needs_keys else self.router(scores)
        expert_T = torch.full((len(scores),), self.expert, device=scores.device)
        weights, log_weights, selection = single_selection(expert_T, routing.weights)
        changed = {"weights": weights, "log_weights": log_weights, "selection": selection}
        return replace(routing, **changed, head_weights=None, straight_through=False)


@contextmanager
def sent_to(model: nn.Module, choices: Mapping[GatePlace, int]):
    """Inside the block these gates send every row, and every token of it, to one expert each.

    The experts run by `auto`: an execution that is made for every row through every expert refuses a selection.
    """
    places = [(place.router, expert) for place, expert in choices.items() if place.router is not None]
    before = [(holder, name, getattr(holder, name)) for (holder, name), _ in places]
    try:
        for (holder, name), expert in places:
            router = getattr(holder, name)
            setattr(holder, name, SentTo(router, expert).train(router.training))
        with executed_by(model, Auto()):
            yield
    finally:
        for holder, name, router in before:
            setattr(holder, name, router)
