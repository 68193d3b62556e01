"""The readable execution, with whose results tests compare every faster one."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution._running import (
    check_shapes,
    checked_output,
    expert_output,
    runs_without_rows,
    with_zero_gradients,
)


class Loop(Execution):
    """Run the experts one after another, each on only the rows that the router sends to it.

    An expert without rows is not run, and its parameters get gradients of zero, not None.

    Example:
        >>> from moebius.routers import Argmax
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())])
        >>> Loop().run(experts, Argmax()(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours.
    """

    def run(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment.

        Raises:
            ArgumentError: an expert's output is not one tensor with an entry for each row, or its shape differs from
                those of the others; or an expert with batch normalisation receives a single row in training.
        """
        if routing.selection is None:
            return all_outputs(pool, x)
        selection, experts = routing.selection, list(pool.all_experts())
        places, outputs, active = [], [], []
        for number, expert in enumerate(experts):
            place_A = torch.nonzero((selection.expert_A == number) & selection.kept_A).squeeze(1)
            if len(place_A) or runs_without_rows(expert):
                rows = selection.row_A[place_A]
                outputs.append(expert_output(number, expert, x[rows], rows))
                places.append(place_A)
                active.append(number)
        if not outputs:  # no expert has rows, but the shape of an output is needed
            no_rows = selection.row_A[:0]
            outputs, places = [expert_output(0, experts[0], x[no_rows], no_rows)], [no_rows]
        output = torch.cat(check_shapes(outputs, active))
        values = output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, torch.cat(places), output)
        idle = (expert for number, expert in enumerate(experts) if number not in active)
        return with_zero_gradients(values, idle)


def all_outputs(pool: Pool, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
    """The outputs of all experts for all rows, one after another."""
    outputs = [checked_output(number, expert, x) for number, expert in enumerate(pool.all_experts())]
    return torch.stack(check_shapes(outputs, range(len(outputs))), 1)
