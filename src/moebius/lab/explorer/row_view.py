"""What the panel of one row shows: the answer, the label, and each gate with what every expert says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from moebius.lab.explorer.combination import Combination, describe_combination
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.predict.explanation import Answer, ExpertView, Explanation, GateView
from moebius.lab.predict.wording import answer_text, expert_text, label_text, loss_text, number, regret_text
from moebius.lab.report.numbers import rate
from moebius.tasks.classification import Classification

# Classes that have a column.
COLUMNS = 6


@dataclass(frozen=True)
class ExpertLine:
    """An expert in the panel.

    Arguments:
        view: of the explanation.
        title: its number and name.
        says: its answer in words; empty where it was not computed.
        loss: of the answer, in words.
        shares: probability of each class that has a column.
        change: what would be different had this expert alone answered.
        is_better: whether the loss would be smaller; None where that is not known.
    """

    view: ExpertView
    title: str
    says: str
    loss: str
    shares: tuple[float, ...]
    change: str
    is_better: bool | None


@dataclass(frozen=True)
class GatePanel:
    """A gate in the panel.

    Arguments:
        view: of the explanation.
        experts: the lines.
        regret: in words; empty where it is not known.
        combination: how the outputs were combined; None for a gate inside another.
    """

    view: GateView
    experts: tuple[ExpertLine, ...]
    regret: str
    combination: Combination | None

    @property
    def is_weighed(self) -> bool:
        """Whether the scores are the weights."""
        return all(line.view.score == line.view.weight for line in self.experts)


@dataclass(frozen=True)
class RowView:
    """The panel of one row.

    Arguments:
        name: of the row.
        answer: what the model says, in words.
        label: in words; empty where it is not known.
        is_right: None where answers are not right or wrong, or the label is not known.
        loss: of the answer, in words, with what it is.
        classes: names of the classes that have a column.
        shares: their probabilities in the model's answer.
        label_class: the class of the label, where it has a column.
        gates: the gates that the row reached, the outer ones first.
        notes: what could not be said.
        skipped: names of gates that the row did not reach.
    """

    name: str
    answer: str
    label: str
    is_right: bool | None
    loss: str
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    label_class: str | None
    gates: tuple[GatePanel, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...] = field(default=())


def view_row(rows: ExplainedRows, place: int = 0) -> RowView:
    """The panel of one of the rows.

    Arguments:
        rows: whose passes keep the outputs.
        place: of the row among them.
    """
    explanation = rows[place]
    classes = _columns(rows, explanation)
    gates = [gate for gate in explanation.gates if len(gate.experts) > 1]
    label_class = None
    if explanation.label and len(explanation.label) == 1:
        label_class = str(next(iter(explanation.label.values())))
    loss = ""
    if explanation.loss is not None:
        loss = f"{explanation.loss_name.replace('_', ' ')} {loss_text(explanation.loss)}"
    is_graded = explanation.score is not None and explanation.score_name == "accuracy"
    return RowView(
        explanation.row,
        _says(explanation.answer),
        "" if explanation.label is None else label_text(explanation.label),
        explanation.score == 1 if is_graded else None,
        loss,
        classes,
        _shares(rows, place, rows.passes.output, classes),
        label_class if label_class in classes else None,
        tuple(_panel(rows, place, gate, classes) for gate in gates if gate.reached),
        explanation.notes,
        tuple(gate.gate for gate in gates if not gate.reached),
    )


def _panel(rows: ExplainedRows, place: int, gate: GateView, classes: Sequence[str]) -> GatePanel:
    explanation, lines = rows[place], []
    for expert in gate.experts:
        outcome = rows.passes.sent.get((gate.gate, expert.expert))
        lines.append(
            ExpertLine(
                expert,
                expert_text(expert),
                "" if expert.answer is None else _says(expert.answer),
                loss_text(expert.loss),
                () if outcome is None else _shares(rows, place, outcome.output, classes),
                _change(explanation, expert),
                None if expert.loss is None or explanation.loss is None else expert.loss < explanation.loss - 1e-6,
            )
        )
    combination = None
    if gate.inside is None:
        combination = describe_combination(rows, place, rows.tables[gate.gate].place)
    return GatePanel(gate, tuple(lines), "" if gate.regret is None else regret_text(gate), combination)


def _says(answer: Answer) -> str:
    """An answer in words: of a single class with its probability in brackets."""
    first = next(iter(answer.values()))
    if len(answer) == 1 and "probability" in first and "shares" not in first:
        return f"{first['prediction']} ({rate(first['probability'])})"
    return answer_text(answer)


def _change(explanation: Explanation, expert: ExpertView) -> str:
    """What would be different had the expert alone answered."""
    if expert.answer is None:
        return ""
    before, text = _says(explanation.answer), f"the model would say {_says(expert.answer)}"
    text += f" in place of {before}" if _says(expert.answer) != before else ", as it does"
    if explanation.score_name == "accuracy" and explanation.label and len(explanation.label) == 1:
        truth, (answer,) = next(iter(explanation.label.values())), expert.answer.values()
        is_right = answer["prediction"] == truth
        words = ("wrong", "right")
        text += f": {words[is_right]}"
        text += f", and not {words[not is_right]}" if explanation.score != float(is_right) else ""
    if expert.loss is not None and explanation.loss is not None:
        change = expert.loss - explanation.loss
        size = number(abs(change))
        text += f"; the loss would be {loss_text(expert.loss)}"
        text += f", {size} {'more' if change > 0 else 'less'}" if abs(change) > 1e-6 else ", the same"
    return f"{text}."


def _columns(rows: ExplainedRows, explanation: Explanation) -> tuple[str, ...]:
    """The classes that have a column: the most probable, that of the label, those that experts which ran name."""
    if not isinstance(rows.task, Classification) or not explanation.top:
        return ()
    names = [name for name, _ in explanation.top[: COLUMNS - 2]]
    if explanation.label:
        names.append(str(next(iter(explanation.label.values()))))
    for gate in explanation.gates:
        for expert in gate.route if gate.reached else ():
            for answer in (expert.answer or {}).values():
                names.append(str(answer["prediction"]))
    chosen = set(list(dict.fromkeys(names))[:COLUMNS])
    return tuple(str(name) for name in rows.passes.targets[0].classes if str(name) in chosen)


def _shares(rows: ExplainedRows, place: int, output: Any, classes: Sequence[str]) -> tuple[float, ...]:
    if not classes or not isinstance(output, Tensor) or not isinstance(rows.task, Classification):
        return ()
    numbers: Mapping[str, int] = {str(name): number for number, name in enumerate(rows.passes.targets[0].classes)}
    probabilities = rows.task.probabilities(output[place : place + 1])[0]
    return tuple(probabilities[[numbers[name] for name in classes]].tolist())
