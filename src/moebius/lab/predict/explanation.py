"""`Explanation`: why a model said what it said of one row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Of the JSON of an explanation; docs/results-schema.md describes it.
SCHEMA = 1

# Name of a target → what is said of it: "prediction", and such as "probability".
Answer = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ExpertView:
    """One expert at one gate, for one row.

    Arguments:
        expert: its number at the gate.
        path: its module path.
        name: such as that of the stage that trained it; None without.
        ran: whether the row was sent to it.
        weight: of its output; None where the row did not reach the gate.
        score: what the gate ranked it by: a probability, or an activation.
        answer: what the model says where the gate sends the row to this expert alone, with weight 1; None where that
            was not computed.
        loss: of this answer; None without a label.
        work: multiply-adds of the whole model with this expert alone; None where that was not counted.
        class_weight: of the predicted class, where the gate weighs each class by itself.
    """

    expert: int
    path: str
    name: str | None
    ran: bool
    weight: float | None
    score: float | None
    answer: Answer | None = None
    loss: float | None = None
    work: float | None = None
    class_weight: float | None = None


@dataclass(frozen=True)
class RunnerUp:
    """An expert that a gate ranked next.

    Arguments:
        expert: its number.
        score: the probability or the activation that the gate gave it.
        margin: by how much that is below the score of the last expert that ran; where all ran, of the first one. Below
            0 where the router did not decide by the score alone (a bias, a capacity).
    """

    expert: int
    score: float
    margin: float


@dataclass(frozen=True)
class GateView:
    """What one gate did with a row.

    Arguments:
        gate: its name, which is its module path.
        inside: module path of the expert that contains it; None for an outermost gate.
        reached: whether the row reached it.
        positions: tokens or positions of the row, over which weights and scores are means.
        scale: "probability" or "activation".
        experts: by weight, then by score, the largest first.
        runners_up: the next ones, best first.
        task: that it weighs experts for, in a layer with a gate for each task.
        best: path of the expert with the smallest loss at equal work, of the whole tree below an outermost gate.
        regret: loss of the model's answer minus that expert's; None without a label.
    """

    gate: str
    inside: str | None
    reached: bool
    positions: int
    scale: str
    experts: tuple[ExpertView, ...]
    runners_up: tuple[RunnerUp, ...]
    task: str | None = None
    best: str | None = None
    regret: float | None = None

    @property
    def route(self) -> tuple[ExpertView, ...]:
        """The experts that ran, the largest weight first."""
        return tuple(expert for expert in self.experts if expert.ran)


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why a model said what it said of one row.

    Arguments:
        row: name of the row: a file, test:12, or its number.
        answer: what the model says.
        gates: what each gate did, the outer ones first.
        top: the most probable classes with their probabilities, best first; empty for other tasks.
        label: name of a target → its value; None where it is not known.
        loss: of the answer; None without a label.
        loss_name: what the loss is.
        score: of the answer, more is better; None without a label, and for scores that are relative to training rows.
        score_name: what the score is.
        notes: what could not be said, and why.
    """

    row: str
    answer: Answer
    gates: tuple[GateView, ...]
    top: tuple[tuple[str, float], ...] = ()
    label: Mapping[str, Any] | None = None
    loss: float | None = None
    loss_name: str = ""
    score: float | None = None
    score_name: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def regret(self) -> float | None:
        """The loss of the answer minus that of the best expert at equal work, for a model with one outermost gate.

        An expert is at equal work if it costs no more than the dearest of those that ran. Below 0 where the mixture is
        better than each of them.
        """
        outer = [gate for gate in self.gates if gate.inside is None and len(gate.experts) > 1]
        return outer[0].regret if len(outer) == 1 else None

    @property
    def route(self) -> tuple[ExpertView, ...]:
        """The experts that ran at the first outermost gate, the largest weight first."""
        return next((gate.route for gate in self.gates if gate.inside is None), ())

    def text(self, width: int = 80) -> str:
        """A block of lines for a terminal.

        Arguments:
            width: most characters of a line.
        """
        from moebius.lab.predict.wording import explanation_text

        return explanation_text(self, width)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; see docs/results-schema.md."""
        return {
            "schema": SCHEMA,
            "row": self.row,
            "answer": _plain(self.answer),
            "top": [{"class": name, "probability": _plain(value)} for name, value in self.top],
            "label": _plain(self.label),
            **{name: _plain(getattr(self, name)) for name in ("loss", "loss_name", "score", "score_name", "regret")},
            "gates": [
                {**_plain(vars(gate)), "experts": [_plain(vars(each)) for each in gate.experts]} for gate in self.gates
            ],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from moebius.lab.predict.wording import explanation_html

        return explanation_html(self)


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, RunnerUp | ExpertView):
        return _plain(vars(value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value
