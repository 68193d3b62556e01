"""How the outputs of a gate's experts became the model's output, checked on the numbers themselves."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.registry import summary
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.training.gate_places import GatePlace
from moebius.tasks.classification import Classification

# Largest difference that is rounding.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Combination:
    """How outputs were combined.

    Arguments:
        combine: name of the component; empty where the layer has none.
        summary: what it does.
        adds: "probabilities" or "outputs", whichever of the experts, times their weights, add up to those of the model;
            empty where neither does.
    """

    combine: str
    summary: str
    adds: str


def describe_combination(rows: ExplainedRows, row: int, place: GatePlace) -> Combination:
    """The combination of an outermost gate for one of the rows.

    Arguments:
        rows: whose passes keep the outputs.
        row: its place among them.
        place: the gate.
    """
    combine: Any = getattr(place.layer, "combine", None)
    name = "" if combine is None else type(combine).__name__
    text = "" if combine is None or not type(combine).__doc__ else summary(type(combine))
    outcomes = [rows.passes.sent.get((place.name, expert)) for expert in range(place.count)]
    outputs = [None if outcome is None else outcome.output for outcome in outcomes]
    total, adds = rows.passes.output, ""
    if isinstance(total, Tensor) and all(isinstance(output, Tensor) for output in outputs):
        weights = rows.tables[place.name].weights[row]
        tensors = [output for output in outputs if isinstance(output, Tensor)]
        if isinstance(rows.task, Classification) and total.ndim == 2:
            task = rows.task
            shares = torch.stack([task.probabilities(output[row : row + 1])[0] for output in tensors])
            if _adds_up(weights, shares, task.probabilities(total[row : row + 1])[0]):
                adds = "probabilities"
        parts = torch.stack([output[row].flatten() for output in tensors])
        if not adds and _adds_up(weights, parts, total[row].flatten()):
            adds = "outputs"
    return Combination(name, text, adds)


def _adds_up(weights: Float[Tensor, " E"], parts: Float[Tensor, "E C"], total: Float[Tensor, " C"]) -> bool:
    ran = weights != 0
    expected = (weights[ran, None] * parts[ran]).sum(0)
    return bool(torch.allclose(expected, total.float(), rtol=ROUNDING, atol=ROUNDING))
