"""Other routes to compare a gate's own with."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from moebius.core.routing import Routing
from moebius.lab.diagnostics._weights import heads_of, with_weights
from moebius.lab.training.mixture_parts import router_places
from moebius.lab.training.rerouting import changed_routers


def uniform_weights(routing: Routing) -> Routing:
    """The routing with the weight 1/E for all experts of every row, in every head and for every class."""
    return with_weights(routing, torch.full_like(heads_of(routing), 1 / routing.experts))


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


@contextmanager
def training_routers(model: nn.Module) -> Iterator[None]:
    """Inside the block routers do what they do in training, by copies: what they count and draw leaves no trace."""
    devices = [parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"][:1]
    copies = changed_routers(model, router_places(model), lambda router: copy.deepcopy(router).train())
    with torch.random.fork_rng(devices), copies:
        yield
