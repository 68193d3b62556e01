"""The readable execution, which every faster one is compared with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.execution._running import run_one, with_zero_gradients
from moebius.routing import Routing
from moebius.stack import Stack


def loop(
    experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Run the experts one after another, each on just the rows sent to it.

    Arguments:
        experts: E modules, also unlike ones, whose outputs have equal shapes.
        x: T rows.
        routing: which expert sees which row.

    Returns:
        Without a selection the outputs of all experts, (T, E, …); else one output per assignment, (A, …), zero where
        it was not kept. An expert that no row chose is not run and gets gradients of zero, not None.

    Raises:
        ArgumentError: an expert with batch normalisation gets a single row to train on.

    Reference: ours.
    """
    if routing.selection is None:
        return torch.stack([expert(x) for expert in experts], 1)
    selection, experts = routing.selection, list(experts)
    places, outputs, idle = [], [], []
    for number, expert in enumerate(experts):
        place_A = torch.nonzero((selection.expert_A == number) & selection.kept_A).squeeze(1)
        if len(place_A) == 0:
            idle.append(expert)
            continue
        rows = selection.row_A[place_A]
        outputs.append(run_one(number, expert, x[rows], rows))
        places.append(place_A)
    if not outputs:  # nothing to run, yet the shape of an output has to be known
        none = selection.row_A[:0]
        outputs, places = [run_one(0, experts[0], x[none], none)], [none]
    output = torch.cat(outputs)
    values = output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, torch.cat(places), output)
    return with_zero_gradients(values, idle)
