"""The contract of combines: the experts' outputs and a routing → one output for each row."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from moebius.core.routing import Routing, Selection
from moebius.routers.soft import Soft
from moebius.testing._contract import (
    require,
    require_close,
    require_dtype,
    require_shape,
    require_true_gradients,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_ROWS, _EXPERTS, _CLASSES = 6, 3, 5


def check_combine(combine: Callable[..., Callable[[Tensor, Routing], Tensor]], **arguments: Any) -> None:
    """Hold a combine to the contract of the room `combine`: every function of `CHECKS`.

    Arguments:
        combine: the class, or a function that makes a combine.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the combine breaks.

    Example:
        >>> import moebius as mb
        >>> check_combine(mb.LogMixture, renormalise=True)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("combine", combine, arguments))


def gives_one_output_for_each_row(subject: Subject) -> None:
    """Outputs (T, E, C) become (T, C), for six rows and none, in float32 at least where it gives log-probabilities."""
    combine = subject.make()
    for rows in (_ROWS, 0):
        for dtype in (torch.float32, torch.float64):
            y = combine(_outputs(rows).to(dtype), _routing(rows).to_dense(dtype))
            require_shape(y, (rows, _CLASSES), "an output")
            require_dtype(y, dtype, "an output")


def declares_whether_it_gives_log_probabilities(subject: Subject) -> None:
    """`gives_log_probabilities` is a truth value; where it is true, distributions are mixed to distributions."""
    combine = subject.make()
    declared = getattr(combine, "gives_log_probabilities", None)
    rule = f"declares gives_log_probabilities = {declared!r}, no truth value"
    require(isinstance(declared, bool), rule, "gives_log_probabilities = False")
    if declared:
        total = combine(_outputs(), _routing().dense).exp().sum(-1)
        rule = "declares gives_log_probabilities and gives numbers whose exponentials do not sum to 1"
        require_close(total, torch.ones_like(total), rule, fix="gives_log_probabilities = False")


def gives_the_same_for_all_outputs_and_for_chosen_ones(subject: Subject) -> None:
    """A selection of all pairs of row and expert, in any order, gives what all outputs (T, E, …) give."""
    combine, outputs, routing = subject.make(), _outputs(), _routing()
    rule = "gives another output for a selection of all pairs than for all outputs"
    require_close(combine(routing.take(outputs), routing.sparse), combine(outputs, routing.dense), rule)


def leaves_out_dropped_assignments(subject: Subject) -> None:
    """The outputs of assignments that are not kept do not count."""
    combine, outputs, routing = subject.make(), _outputs(), _routing()
    selection = routing.sparse.selection
    assert selection is not None
    kept = torch.arange(len(selection.kept_A)) % 3 > 0
    scores = routing.dense.scores
    some = Routing.from_selection(scores, routing.dense.probs, replace(selection, kept_A=kept))
    values = routing.take(outputs)
    changed = torch.where(kept.unsqueeze(-1), values, values + 1)
    require_close(combine(changed, some), combine(values, some), "counts the outputs of dropped assignments")


def permuting_rows_permutes_outputs(subject: Subject) -> None:
    """A row's output does not depend on its place."""
    combine, outputs, order = subject.make(), _outputs(), torch.arange(_ROWS).flip(0)
    permuted = combine(outputs[order], Soft()(_scores()[order]))
    rule = "treats rows by their place: permuted rows differ"
    require_close(permuted, combine(outputs, _routing().dense)[order], rule)


def does_not_depend_on_the_order_of_experts(subject: Subject) -> None:
    """Experts that change places, with their weights, give the same output."""
    combine, outputs, order = subject.make(), _outputs(), [2, 0, 1]
    permuted = combine(outputs[:, order], Soft()(_scores()[:, order]))
    require_close(permuted, combine(outputs, _routing().dense), "depends on the order of the experts")


def gives_equal_outputs_whatever_their_weights(subject: Subject) -> None:
    """Where all experts give the same, weights that sum to 1 change nothing: a mixture of one expert is the expert."""
    combine, outputs = subject.make(), _outputs()[:, :1]
    alone = combine(outputs, Soft()(torch.zeros(_ROWS, 1, dtype=torch.float64)))
    several = combine(outputs.expand(-1, _EXPERTS, -1), _routing().dense)
    require_close(several, alone, "gives another output for equal experts than for one of them")


def has_the_gradients_of_finite_differences(subject: Subject) -> None:
    """Gradients of outputs and scores are those of finite differences, for all outputs and for a selection."""
    combine, routing = subject.make(), _routing()
    inputs = (_outputs().requires_grad_(), _scores().requires_grad_())

    def dense(outputs: Tensor, scores: Tensor) -> Tensor:
        return combine(outputs, Soft()(scores))

    def sparse(outputs: Tensor, scores: Tensor) -> Tensor:
        return combine(routing.take(outputs), routing.select(Soft()(scores)))

    for name, function in (("all outputs", dense), ("a selection", sparse)):
        require_true_gradients(function, inputs, f"has other gradients than finite differences for {name}")


class _Routings:
    """A routing of every expert for every row, and the same as a selection in another order.

    Arguments:
        scores: (T, E).
    """

    def __init__(self, scores: Tensor):
        self.dense = Soft()(scores)
        count = scores.numel()
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        self.row_A, self.expert_A = order // _EXPERTS, order % _EXPERTS
        self.sparse = self.select(self.dense)

    def to_dense(self, dtype: torch.dtype) -> Routing:
        """Every expert for every row, in another number format."""
        return Soft()(self.dense.scores.to(dtype))

    def select(self, routing: Routing) -> Routing:
        """The same weights as a selection."""
        weight_A = routing.weights[self.row_A, self.expert_A]
        selection = Selection(self.row_A, self.expert_A, weight_A, torch.ones(len(weight_A), dtype=torch.bool))
        return Routing.from_selection(routing.scores, routing.probs, selection)

    def take(self, outputs: Tensor) -> Tensor:
        """Outputs (T, E, C) as those of the selection's assignments, (A, C)."""
        return outputs[self.row_A, self.expert_A]


def _scores(rows: int = _ROWS) -> Tensor:
    return torch.randn(rows, _EXPERTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _outputs(rows: int = _ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, _EXPERTS, _CLASSES, generator=generator, dtype=torch.float64)


def _routing(rows: int = _ROWS) -> _Routings:
    return _Routings(_scores(rows))


CHECKS = (
    gives_one_output_for_each_row,
    declares_whether_it_gives_log_probabilities,
    gives_the_same_for_all_outputs_and_for_chosen_ones,
    leaves_out_dropped_assignments,
    permuting_rows_permutes_outputs,
    does_not_depend_on_the_order_of_experts,
    gives_equal_outputs_whatever_their_weights,
    has_the_gradients_of_finite_differences,
)
