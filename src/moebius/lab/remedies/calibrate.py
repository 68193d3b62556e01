"""Calibrate: a temperature for the model's outputs."""

import math
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from moebius.combine.tempered import Tempered
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.training.evaluation import ROWS_AT_ONCE
from moebius.layers.mixture import Mixture
from moebius.tasks.classification import Classification

# Of the temperature.
BOUNDS = (0.02, 50.0)


@remedy("calibration", keeps_answers=True)
def calibrate(case: Case) -> Treatment | Obstacle:
    """The outputs are divided by the temperature τ that has the least loss on the rows: `mb.combine.Tempered`.

    Every predicted class stays the same, and so does the order of all classes.

    Reference: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    if not isinstance(case.task, Classification):
        return Obstacle("it is for models that give probabilities of classes")
    copied = case.copy()
    if not isinstance(copied, Mixture):
        return Obstacle("the model is no mixture itself: divide its logits by a temperature behind it")
    outputs, labels = _outputs(case)
    plain = Tempered(copied.combine)

    def loss(log_temperature: float) -> float:
        values = outputs / math.exp(log_temperature)
        values = values.log_softmax(-1) if plain.gives_log_probabilities else values
        return float(case.task.row_losses(values, labels).double().mean())

    if not math.isfinite(loss(0.0)):
        return Obstacle("its loss is infinite: a class of some row has the probability 0")
    low, high = map(math.log, BOUNDS)
    minimum: Any = minimize_scalar(loss, bounds=(low, high), method="bounded")
    temperature = math.exp(float(minimum.x))
    copied.combine = Tempered(copied.combine, round(temperature, 4))
    return Treatment(copied, f"outputs are divided by the temperature {temperature:.3g}")


def _outputs(case: Case) -> tuple[Tensor, Tensor]:
    outputs, labels = [], []
    with evaluation_mode(case.call.model), torch.inference_mode():
        for batch in ordered_batches(case.rows, ROWS_AT_ONCE, channels_last=case.call.channels_last):
            outputs.append(case.call(batch.x, batch.domains))
            labels.append(batch.labels)
    return torch.cat(outputs), torch.cat(labels)
