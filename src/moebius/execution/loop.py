"""The readable execution, which every faster one is compared with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.errors import ArgumentError
from moebius.frame import current, entered
from moebius.routing import Routing


def loop(
    experts: Sequence[nn.Module] | nn.ModuleList, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Run the experts one after another, each on just the rows sent to it.

    Arguments:
        experts: E modules, also unlike ones, whose outputs have equal shapes.
        x: T rows.
        routing: which expert sees which row.

    Returns:
        Without a selection the outputs of all experts, (T, E, …); else one output per assignment, (A, …), zero where
        it was not kept. An expert that no row chose is not run and gets gradients of zero, not None: an optimizer
        treats the two differently, and data-parallel training waits for every parameter.

    Raises:
        ArgumentError: an expert with batch normalisation gets a single row to train on.

    Reference: ours.
    """
    if routing.selection is None:
        return torch.stack([expert(x) for expert in experts], 1)
    selection, frame = routing.selection, current()
    places, outputs, idle = [], [], []
    for number, expert in enumerate(experts):
        place_A = torch.nonzero((selection.expert_A == number) & selection.kept_A).squeeze(1)
        if len(place_A) == 0:
            idle.extend(expert.parameters())
            continue
        rows = selection.row_A[place_A]
        with entered(frame.at(rows)):
            outputs.append(_run(number, expert, x[rows]))
        places.append(place_A)
    if not outputs:  # nothing to run, yet the shape of an output has to be known
        none = selection.row_A[:0]
        with entered(frame.at(none)):
            outputs, places = [experts[0](x[none])], [none]
    output = torch.cat(outputs)
    values = output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, torch.cat(places), output)
    trained = [parameter for parameter in idle if parameter.requires_grad]
    return _WithZeroGradients.apply(values, *trained) if trained else values


def _run(number: int, expert: nn.Module, x: Tensor) -> Tensor:
    try:
        return expert(x)
    except ValueError as error:
        if len(x) != 1 or "more than 1 value per channel" not in str(error):
            raise
        rule = "batch normalisation needs more than one row to train on, and the router sent it"
        raise ArgumentError(f"experts.{number}", rule, 1, "a larger batch, or nn.GroupNorm in its place") from error


class _WithZeroGradients(torch.autograd.Function):
    """The first argument unchanged; the others get gradients of zero."""

    @staticmethod
    def forward(ctx, values, *parameters):
        ctx.save_for_backward(*parameters)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0], *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)
