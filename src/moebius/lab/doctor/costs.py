"""What running a model costs, and how evenly and how calibrated it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics.calibration import Calibration
from moebius.lab.model.cost import count_multiply_adds
from moebius.lab.remedies._fitting import effective_experts
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import Evaluation

# Rows whose multiply-adds are counted.
ROWS = 64


@dataclass(frozen=True)
class Costs:
    """What a model takes, and how it uses its experts.

    Arguments:
        parameters: of the whole model.
        multiply_adds: of matrix products and convolutions, for a row; None for inputs of several parts.
        used_experts: exp(H) of the mean weights of the gate in question: E for even use, 1 for a single expert.
        calibration_error: mean difference of confidence and accuracy in 15 bins; None without probabilities.
    """

    parameters: int
    multiply_adds: float | None
    used_experts: float | None
    calibration_error: float | None

    def to_dict(self) -> Mapping[str, Any]:
        """All fields, as they go into JSON."""
        return dict(vars(self))


def measure_costs(call: ModelCall, gate: str, rows: Split, evaluation: Evaluation) -> Costs:
    """The costs of a model.

    Arguments:
        call: the model.
        gate: name of the gate whose use is measured.
        rows: evaluated ones.
        evaluation: of these rows.
    """
    batch = next(ordered_batches(rows.take(slice(0, ROWS)), ROWS, channels_last=call.channels_last))
    work = None
    if isinstance(batch.x, Tensor):
        with evaluation_mode(call.model):
            work = count_multiply_adds(call.model, batch.x, {"domain": batch.domains})
    weights = evaluation.gates.get(gate)
    return Costs(
        sum(parameter.numel() for parameter in call.model.parameters()),
        work,
        None if weights is None else effective_experts(weights),
        calibration_error(evaluation),
    )


def calibration_error(evaluation: Evaluation) -> float | None:
    """The calibration error of `Calibration`; None without a probability for each row, and right or wrong."""
    confidence, scores = evaluation.probabilities, evaluation.scores
    if confidence is None or confidence.ndim != 1 or scores.dtype != torch.bool or not len(scores):
        return None
    rows = RoutedRows(torch.ones(len(scores), 1), confidence=confidence, scores=scores)
    return float(Calibration.of(rows)["ece"].iloc[0])
