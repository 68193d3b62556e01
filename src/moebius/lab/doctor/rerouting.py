"""The same model with the routes of one gate changed, for as long as a block lasts."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from moebius.core.routing import Router, Routing
from moebius.execution.auto import Auto
from moebius.lab.training.mixture_parts import gate_experts, router_places
from moebius.layers.mixture import executed_by

Change = Callable[[Routing], Routing]


class Rerouting(Router):
    """A router whose routing is changed before anything reads it.

    Arguments:
        router: the other router.
        change: of its routing.
    """

    rows_sum_to = None
    trains_gate = False

    def __init__(self, router: Router, change: Change):
        super().__init__()
        self.router, self.change = router, change
        self.needs_keys, self.aux_names = router.needs_keys, router.aux_names

    def gate_outputs(self, experts: int) -> int:
        """The number that the other router takes."""
        return self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """All experts may run."""
        return experts

    def forward(self, scores: Tensor, keys: Tensor | None = None) -> Routing:
        """Route as the other router does, then change the routing."""
        return self.change(self.router(scores, keys) if self.needs_keys else self.router(scores))


def uniform_weights(routing: Routing) -> Routing:
    """The routing with the weight 1/E for all experts of every row, in every head and for every class."""
    return _with_weights(routing, torch.full_like(_heads(routing), 1 / routing.experts))


def swapped_rows(routing: Routing, seed: int = 0) -> Routing:
    """The routing in which each row has the routes of another one of its batch.

    Arguments:
        routing: of a batch.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(routing.weights), generator=generator).to(routing.weights.device)
    selection = routing.selection
    if selection is not None:
        # Row r gives its routes to row order[r].
        selection = replace(selection, row_A=order[selection.row_A])
    moved = {
        name: torch.empty_like(values).index_copy(0, order, values)
        for name in ("weights", "log_weights", "head_weights")
        if (values := getattr(routing, name)) is not None
    }
    return replace(routing, **moved, selection=selection, straight_through=False)


def without_expert(routing: Routing, expert: int) -> Routing:
    """The routing in which the other experts of a row share the weight of one; the next best takes rows of it alone.

    All experts' outputs are expected: there is no selection.

    Arguments:
        routing: of a batch.
        expert: the number of the one that is left out.
    """
    heads = _heads(routing)
    total = heads.sum(2, keepdim=True)
    weights = heads.clone()
    weights[:, :, expert] = 0
    probs = routing.probs.clone()
    probs[:, expert] = -torch.inf
    following = torch.zeros_like(routing.weights).scatter(1, probs.argmax(1, keepdim=True), 1.0)
    following = following[:, None, :, None].expand_as(weights)
    weights = torch.where(weights.any(2, keepdim=True), weights, following)
    return _with_weights(routing, weights * total / weights.sum(2, keepdim=True))


def _heads(routing: Routing) -> Tensor:
    """The weights as (T, H, E, C)."""
    return routing.weights[:, None, :, None] if routing.head_weights is None else routing.head_weights


def _with_weights(routing: Routing, heads: Tensor) -> Routing:
    """The routing with other weights (T, H, E, C), and without a selection."""
    weights = heads.sum(1).mean(-1)
    head_weights = None if routing.head_weights is None else heads
    return replace(
        routing,
        weights=weights,
        log_weights=weights.log(),
        head_weights=head_weights,
        selection=None,
        straight_through=False,
    )


def gate_places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The path that each gate records under → the module that holds its router, and the attribute of it."""
    return dict(zip(gate_experts(model), router_places(model), strict=True))


@contextmanager
def rerouted(model: nn.Module, path: str, change: Change) -> Iterator[None]:
    """Inside the block the gate at a path has its routings changed; after it the model has its router again.

    Arguments:
        model: with the gate.
        path: that it records under.
        change: of its routings.
    """
    holder, name = gate_places(model)[path]
    router = getattr(holder, name)
    try:
        setattr(holder, name, Rerouting(router, change).train(router.training))
        with executed_by(model, Auto()):
            yield
    finally:
        setattr(holder, name, router)


@contextmanager
def training_routers(model: nn.Module) -> Iterator[None]:
    """Inside the block routers do what they do in training, by copies: what they count and draw leaves no trace."""
    places = router_places(model)
    routers = [getattr(holder, name) for holder, name in places]
    devices = [parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices):
        try:
            for (holder, name), router in zip(places, routers, strict=True):
                setattr(holder, name, copy.deepcopy(router).train())
            yield
        finally:
            for (holder, name), router in zip(places, routers, strict=True):
                setattr(holder, name, router)
