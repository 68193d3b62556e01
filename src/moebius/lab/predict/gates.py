"""The gates of a model: where they stand, which experts they weigh, and how they weigh each row of one pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.recording import Log
from moebius.core.routing import Routing
from moebius.lab.training.gate_places import GatePlace, find_gates
from moebius.lab.training.routed_tokens import store_by_row, tokens_per_row


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
