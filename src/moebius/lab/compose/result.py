"""What became of one way: its scores on judging rows, and what it costs."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from moebius.kit.modes import evaluation_mode
from moebius.lab.compose.estimator import EstimatorNetwork
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.model.cost import count_multiply_adds
from moebius.lab.training.call_model import call_model

# Rows whose multiply-adds are counted and that are timed together, and how often.
ROWS = 64
ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Result:
    """One way: its model, scores and costs; or why it was not tried.

    Arguments:
        way: its name, such as "best-single".
        control: whether it is a model that mixtures have to beat; such a one is not recommended.
        reason: why it was not tried; empty for one that was.
        text: what it does.
        model: in evaluation mode; None where it was not tried.
        scores, losses: of each judging row.
        multiply_adds: of matrix products and convolutions, for a row; None where a part is no network of torch.
        ms: milliseconds for a row, in batches of 64 rows.
        parameters: of the whole model.
    """

    way: str
    control: bool = False
    reason: str = ""
    text: str = ""
    model: nn.Module | None = None
    scores: Float[np.ndarray, " T"] | None = None
    losses: Float[np.ndarray, " T"] | None = None
    multiply_adds: float | None = None
    ms: float | None = None
    parameters: int | None = None

    @property
    def is_tried(self) -> bool:
        """Whether there is a model."""
        return self.model is not None

    @property
    def score(self) -> float:
        """The mean score of the judging rows; NaN for a way that was not tried."""
        return float("nan") if self.scores is None else float(self.scores.mean())

    @property
    def loss(self) -> float:
        """The mean loss of the judging rows; NaN for a way that was not tried."""
        return float("nan") if self.losses is None else float(self.losses.mean())

    def cost(self, unit: str) -> float | None:
        """What a row costs, in "multiply_adds" or "ms"."""
        return self.multiply_adds if unit == "multiply_adds" else self.ms


def measure_costs(model: nn.Module, rows: Split) -> tuple[float | None, float, int]:
    """Multiply-adds and milliseconds of a row, and the parameters of the model.

    Arguments:
        model: in evaluation mode.
        rows: of which the first 64 run.
    """
    batch = next(ordered_batches(rows.take(slice(0, ROWS)), ROWS))
    work = None
    with evaluation_mode(model), torch.no_grad():
        if not any(isinstance(part, EstimatorNetwork) for part in model.modules()):
            work = count_multiply_adds(model, batch.x, {"domain": batch.domains})
        seconds = min(_seconds(lambda: call_model(model, batch.x, batch.domains)) for _ in range(ROUNDS))
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return work, 1000 * seconds / len(batch), sum(parameters.values())


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
