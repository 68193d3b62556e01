"""The same model with other routes, for as long as a block lasts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from moebius.core.routing import Router, Routing
from moebius.execution.auto import Auto
from moebius.lab.training.gate_places import GatePlace, Place
from moebius.layers.mixture import executed_by
from moebius.routers._selecting import single_selection, with_selection

Change = Callable[[Routing], Routing]


class Rerouting(Router):
    """A router whose routing is changed before anything reads it.

    Arguments:
        router: the other router.
        change: of its routing.

    Reference: ours.
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

    def forward(self, scores: Tensor, keys: Tensor | None = None) -> Routing:
        """Route as the other router does, then change the routing."""
        return self.change(self.router(scores, keys) if self.needs_keys else self.router(scores))


@contextmanager
def changed_routers(model: nn.Module, places: Iterable[Place], change: Callable[[Router], Router]) -> Iterator[None]:
    """Inside the block the routers at some places are others; after it, also after an error, they are back.

    The experts run by `auto`: an execution that is made for every row through every expert refuses a selection.

    Arguments:
        model: with the routers.
        places: of the routers.
        change: a router → the one that takes its place, in the mode that it is to have.
    """
    before = [(*place, getattr(*place)) for place in places]
    try:
        for holder, name, router in before:
            setattr(holder, name, change(router))
        with executed_by(model, Auto()):
            yield
    finally:
        for holder, name, router in before:
            setattr(holder, name, router)


def rerouted(model: nn.Module, gates: Iterable[GatePlace], change: Change) -> AbstractContextManager[None]:
    """Inside the block the routings of some gates are changed.

    Arguments:
        model: with the gates.
        gates: that have a router; others stay as they are.
        change: of their routings.
    """
    places = [gate.router_holder for gate in gates if gate.router_holder is not None]
    return changed_routers(model, places, lambda router: Rerouting(router, change).train(router.training))


def sent_to(model: nn.Module, choices: Mapping[GatePlace, int]) -> AbstractContextManager[None]:
    """Inside the block these gates send every row, and every token of it, to one expert each, with weight 1.

    Arguments:
        model: with the gates.
        choices: gate → number of the expert.
    """
    experts = {id(gate.router): expert for gate, expert in choices.items()}
    places = [gate.router_holder for gate in choices if gate.router_holder is not None]

    def send(router: Router) -> Router:
        expert = experts[id(router)]
        return Rerouting(router, lambda routing: _single_expert(routing, expert)).train(router.training)

    return changed_routers(model, places, send)


def _single_expert(routing: Routing, expert: int) -> Routing:
    expert_T = torch.full((len(routing.weights),), expert, device=routing.weights.device)
    return with_selection(routing, *single_selection(expert_T, routing.weights))
