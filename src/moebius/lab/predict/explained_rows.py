"""`ExplainedRows`: explanations of many rows, which are computed together and put into words one by one."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moebius.core.row_context import RowContext
from moebius.lab.predict.answers import Answers, label_values, top_classes
from moebius.lab.predict.explanation import ExpertView, Explanation, GateView, RunnerUp
from moebius.lab.predict.gates import GateTable
from moebius.lab.predict.passes import Outcome, Passes
from moebius.lab.predict.subject import Subject
from moebius.lab.training.gate_places import GatePlace
from moebius.tasks.classification import Classification
from moebius.tasks.multi_label import MultiLabel
from moebius.tasks.tokens import Tokens

# Runners-up of each gate.
RUNNERS_UP = 3


class ExplainedRows:
    """The explanations of many rows: `rows[3]` is that of the fourth.

    Arguments:
        subject: the model.
        x: rows, as the model takes them.
        context: of these rows.
        names: of the rows.
        label: what `Subject.encode_label` takes; None where it is not known.
        top: number of most probable classes.
        alternatives: whether to compute what every expert says; None for yes, unless that takes too many passes.
        keeps_outputs: whether `passes` keeps the model's outputs along every route.

    Attributes:
        passes: what was computed.
    """

    def __init__(
        self,
        subject: Subject,
        x: Any,
        context: RowContext,
        names: Sequence[str],
        label: Any = None,
        top: int = 3,
        alternatives: bool | None = None,
        keeps_outputs: bool = False,
    ):
        self.names = list(names)
        self.passes = Passes(subject, x, context, len(names), label, alternatives, keeps_outputs)
        task, targets = subject.task, self.passes.targets
        self.task, self.expert_names = task, subject.expert_names
        self.top = top_classes(task, targets[0].classes, self.passes.output, top)
        self.labels = None if self.passes.label is None else label_values(targets, self.passes.label)
        # Of other tasks the score is relative to training rows, which are not at hand.
        self.has_score = isinstance(task, Classification | MultiLabel | Tokens)
        self.tables = {table.place.name: table for table in self.passes.gates}

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Explanation]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, row: int) -> Explanation:
        if not 0 <= row < len(self):
            raise IndexError(row)
        loss = _number(self.passes.outcome.losses, row)
        is_labelled = loss is not None and self.labels is not None
        return Explanation(
            self.names[row],
            _of_row(self.passes.outcome.answers, row),
            tuple(self._view_gate(table, row) for table in self.passes.gates),
            () if self.top is None else tuple(self.top[row]),
            {name: values[row] for name, values in self.labels.items()} if is_labelled and self.labels else None,
            loss,
            self.task.loss_name,
            _number(self.passes.scores, row) if self.has_score else None,
            self.task.score_name,
            tuple(self.passes.notes),
        )

    def _view_gate(self, table: GateTable, row: int) -> GateView:
        place, weights, scores = table.place, table.weights[row].tolist(), table.scores[row].tolist()
        reached = not any(map(math.isnan, weights))
        order = list(range(len(weights)))
        if reached:
            order.sort(key=lambda expert: (-abs(weights[expert]), -scores[expert]))
        by_class = None
        if reached and table.class_weights is not None and isinstance(self.task, Classification):
            by_class = table.class_weights[row, :, int(self.passes.output[row].argmax())].tolist()
        experts = []
        for expert in order:
            outcome, path = self.passes.sent.get((place.name, expert)), place.experts[expert]
            weight, score = (weights[expert], scores[expert]) if reached else (None, None)
            view = ExpertView(
                expert,
                path,
                self.expert_names.get(path),
                bool(weight),
                weight,
                score,
                None if outcome is None else _of_row(outcome.answers, row),
                None if outcome is None else _number(outcome.losses, row),
                None if outcome is None else outcome.work,
                None if by_class is None else by_class[expert],
            )
            experts.append(view)
        inside = None if place.inside is None else self.tables[place.inside[0]].place.experts[place.inside[1]]
        best, regret = self._regret(place, row) if inside is None else (None, None)
        return GateView(
            place.name,
            inside,
            reached,
            table.positions,
            "probability" if table.is_distribution else "activation",
            tuple(experts),
            _runners_up(weights, scores) if reached else (),
            place.task,
            best,
            regret,
        )

    def _regret(self, place: GatePlace, row: int) -> tuple[str | None, float | None]:
        """The best leaf below an outermost gate that costs no more than the dearest one that ran, and the regret."""
        loss, leaves = _number(self.passes.outcome.losses, row), list(self._leaves(place, row, True))
        costs = [outcome.work or 0.0 for _, ran, outcome in leaves if ran]
        if loss is None or not costs:
            return None, None
        limit = max(costs) * (1 + 1e-6)
        affordable = [(path, outcome) for path, _, outcome in leaves if (outcome.work or 0.0) <= limit]
        losses = [(value, path) for path, outcome in affordable if (value := _number(outcome.losses, row)) is not None]
        if not losses:
            return None, None
        least, path = min(losses)
        return path, loss - least

    def _leaves(self, place: GatePlace, row: int, ran: bool) -> Iterator[tuple[str, bool, Outcome]]:
        """Path, whether the row was sent there, and outcome of the experts below a gate that contain no gate."""
        weights = self.tables[place.name].weights[row].tolist()
        for expert, path in enumerate(place.experts):
            is_sent = ran and weights[expert] != 0 and not math.isnan(weights[expert])
            inner = [table.place for table in self.passes.gates if table.place.inside == (place.name, expert)]
            inner = [each for each in inner if len(each.experts) > 1]
            outcome = self.passes.sent.get((place.name, expert))
            if len(inner) == 1:
                yield from self._leaves(inner[0], row, is_sent)
            elif outcome is not None:
                yield path, is_sent, outcome


def _runners_up(weights: Sequence[float], scores: Sequence[float]) -> tuple[RunnerUp, ...]:
    ran = [weight != 0 for weight in weights]
    if all(ran):
        first = max(range(len(weights)), key=lambda expert: weights[expert])
        ran = [expert == first for expert in range(len(weights))]
    bar = min((score for score, has_run in zip(scores, ran, strict=True) if has_run), default=max(scores))
    left = sorted((expert for expert, has_run in enumerate(ran) if not has_run), key=lambda expert: -scores[expert])
    return tuple(RunnerUp(expert, scores[expert], bar - scores[expert]) for expert in left[:RUNNERS_UP])


def _of_row(answers: Answers, row: int) -> dict[str, dict[str, Any]]:
    return {
        name: {key: _python(values[row]) for key, values in of_target.items()} for name, of_target in answers.items()
    }


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _number(values: Sequence[float] | None, row: int) -> float | None:
    return None if values is None or math.isnan(values[row]) else values[row]
