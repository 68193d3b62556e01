"""What is known of one gate when it is examined."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from moebius.lab.diagnostics._rows import RoutedRows


@dataclass(frozen=True)
class Outcome:
    """What a model makes of the same rows in another way.

    Arguments:
        losses: the task's loss of each row.
        scores: its score.
    """

    losses: Float[Tensor, " T"]
    scores: Shaped[Tensor, " T"]


@dataclass(frozen=True)
class Examination:
    """The rows that a gate has routed, and what else was tried with it. What is None was not tried, or cannot be.

    Arguments:
        gate: its name, as in `Evaluation.gates`: "gate", "experts.0.gate".
        rows: as it routes them, without padding.
        padding: assignments of padding, and all assignments; None without a mask.
        decides: False for a gate that is made to weigh all experts alike.
        learns: whether the gate has parameters to train, and its router says that it trains them.
        outermost: whether the model is itself the mixture of this gate.
        outputs: each expert's output for the first rows, flat.
        gradient: RMS of the loss's gradient at the gate's scores, divided by that at the model's output.
        as_is: the model as it is, for the rows of the data that reach this gate.
        uniform: the same where this gate weighs all experts alike.
        permuted: the same where this gate gives each row the weights of another.
        network: a classifier of the gate's own architecture, trained on the same task.
        moved: which rows go to other experts when the same rows come in another order and other batches.
        training_drops: share of each row's assignments that the capacity refuses while the model trains.
        tasks_experts: numbers of the experts that are the gate's task's alone; empty where all experts are shared.
        expert_classes: the classes that each expert knows; None for all.
        targets: of the rows, where they are numbers.
    """

    gate: str
    rows: RoutedRows
    decides: bool = True
    learns: bool = True
    outermost: bool = False
    outputs: Float[Tensor, "R E D"] | None = None
    gradient: float | None = None
    as_is: Outcome | None = None
    uniform: Outcome | None = None
    permuted: Outcome | None = None
    network: Outcome | None = None
    moved: Bool[Tensor, " T"] | None = None
    training_drops: Float[Tensor, " T"] | None = None
    padding: tuple[float, float] | None = None
    tasks_experts: tuple[int, ...] = ()
    expert_classes: tuple[tuple[int, ...] | None, ...] = ()
    targets: Float[Tensor, " T"] | None = None
