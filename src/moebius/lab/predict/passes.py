"""The passes of a model over rows that are asked about: as it routes them, and along every other route."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from moebius.core.output_cache import OutputCache
from moebius.core.row_context import RowContext
from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.nested import map_nested
from moebius.lab.data.tables.columns import TargetColumn
from moebius.lab.model.cost import count_multiply_adds
from moebius.lab.predict.answers import Answers, guess_targets, read_answers
from moebius.lab.predict.forward import run_rows
from moebius.lab.predict.gates import GateTable, gate_tables
from moebius.lab.predict.subject import Subject
from moebius.lab.training.cacheable_parts import cacheable_parts
from moebius.lab.training.gate_places import GatePlace, find_gates
from moebius.lab.training.rerouting import sent_to
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification
from moebius.tasks.multi_task import MultiTask

# Passes along other routes that are made unless more are asked for.
MOST_PASSES = 128


@dataclass(frozen=True)
class Outcome:
    """What one pass gave.

    Arguments:
        answers: of each target.
        losses: of each row; NaN for rows without a label, None without any.
        work: multiply-adds of a row; None where nothing is compared by it.
        output: of the model; None unless outputs are kept.
    """

    answers: Answers
    losses: list[float] | None = None
    work: float | None = None
    output: Any = None


class Passes:
    """A model's answers for rows, and those that it gives where a gate sends all rows to one expert.

    Arguments:
        subject: the model.
        x: rows, as the model takes them.
        context: of these rows.
        rows: T.
        label: what `Subject.encode_label` takes; None where it is not labelled.
        alternatives: whether to compute what every expert says; None for yes, unless that takes too many passes.
        keeps_outputs: whether outcomes keep the model's outputs.

    Attributes:
        outcome: of the model as it routes the rows.
        sent: name of a gate and number of an expert → the outcome where the gate sends all rows there.
        gates: how each gate weighed the rows.
        label: in the form of the task.
        notes: what was not computed, and why.

    Raises:
        ArgumentError: a label does not fit the model, or there is not a name for each class.
    """

    def __init__(
        self,
        subject: Subject,
        x: Any,
        context: RowContext,
        rows: int,
        label: Any = None,
        alternatives: bool | None = None,
        keeps_outputs: bool = False,
    ):
        self.keeps_outputs = keeps_outputs
        self.subject, self.x, self.context, self.rows = subject, x, context, rows
        self.notes: list[str] = []
        with evaluation_mode(subject.model):
            output, self.log = run_rows(subject.model, x, context, subject.precision)
            self.output = map_nested(output, _widen)
            self.targets: tuple[TargetColumn, ...] = subject.targets or tuple(guess_targets(subject.task, self.output))
            self._check_classes()
            self.label = None if label is None else subject.encode_label(label, self.targets, rows)
            self.gates: list[GateTable] = gate_tables(subject.model, self.log, rows)
            self.scores = self._of_known_rows(self.output, "row_scores")
            self.outcome = self._read(self.output)
            self.sent: dict[tuple[str, int], Outcome] = {}
            if alternatives is not False:
                self._send_everywhere(alternatives is True)

    def _check_classes(self) -> None:
        names = self.targets[0].classes
        if isinstance(self.subject.task, Classification) and len(names) != self.output.shape[-1]:
            rule = f"needs a name for each of the {self.output.shape[-1]} outputs of the model"
            raise ArgumentError("classes", rule, len(names), "as many names, or a run as it was written")

    def _send_everywhere(self, whatever_it_takes: bool) -> None:
        gates = [place for place in find_gates(self.subject.model) if len(place.experts) > 1]
        passes = sum(len(place.experts) for place in gates)
        if passes > MOST_PASSES and not whatever_it_takes:
            self.notes.append(
                f"what each expert says takes {passes:,} passes and was not computed: alternatives=True computes it"
            )
            return
        by_name = {place.name: place for place in gates}
        counts_work = self.label is not None and isinstance(self.x, Tensor)
        cache = self._frozen_outputs()
        numbers = torch.arange(self.rows, device=self.x.device if isinstance(self.x, Tensor) else None)
        first = {name: value[:1] for name, value in self.context.local_values().items()}
        for place in gates:
            if place.router is None:
                self.notes.append(f"{place.name}: its experts see mixtures of tokens, so none of them answers alone")
                continue
            for expert in range(len(place.experts)):
                with sent_to(self.subject.model, _choices(place, expert, by_name)):
                    with cache.serve_rows(numbers):
                        output, _ = run_rows(self.subject.model, self.x, self.context, self.subject.precision)
                    work = count_multiply_adds(self.subject.model, self.x[:1], first) if counts_work else None
                self.sent[place.name, expert] = self._read(map_nested(output, _widen), work)

    def _frozen_outputs(self) -> OutputCache:
        """What frozen parts say of the rows, which no route changes: computed once for all passes."""
        parts = cacheable_parts(self.subject.model) if isinstance(self.x, Tensor) else []
        return OutputCache({part: run_rows(part, self.x, self.context, self.subject.precision)[0] for part in parts})

    def _read(self, output: Any, work: float | None = None) -> Outcome:
        losses = self._of_known_rows(output, "row_losses")
        kept = output if self.keeps_outputs else None
        return Outcome(read_answers(self.subject.task, self.targets, output), losses, work, kept)

    def _of_known_rows(self, output: Any, method: str) -> list[float] | None:
        """The loss or the score of each row, in order; NaN for rows without a label."""
        if self.label is None:
            return None
        task = self.subject.task
        rows = _has_target(task, self.label).nonzero().squeeze(1)
        values = torch.full((self.rows,), torch.nan)
        if len(rows):
            labelled = [map_nested(each, lambda tensor: tensor[rows]) for each in (output, self.label)]
            task.check(*labelled)
            values[rows] = getattr(task, method)(*labelled).float()
        return values.tolist()


def _has_target(task: Task, label: Any) -> Bool[Tensor, " T"]:
    if isinstance(task, MultiTask):
        return torch.stack([each.has_target(label[name]) for name, each in task.tasks.items()]).any(0)
    return task.has_target(label)


def _choices(place: GatePlace, expert: int, by_name: Mapping[str, GatePlace]) -> dict[GatePlace, int]:
    """The choices of a gate, and of those around it, that lead to one of its experts."""
    choices = {place: expert}
    while place.inside is not None and place.inside[0] in by_name:
        number = place.inside[1]
        place = by_name[place.inside[0]]
        choices[place] = number
    return choices


def _widen(output: Tensor) -> Tensor:
    return output.float() if output.is_floating_point() and output.itemsize < 4 else output
