"""What the gates of a finished run suffer from, as far as its outcome for the test rows tells."""

from collections.abc import Sequence

import torch
from torch import Tensor

from moebius.gates.uniform import Uniform
from moebius.lab.data.split import Dataset
from moebius.lab.diagnostics._rows import NO_GROUP, RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._find import find_illnesses
from moebius.lab.illnesses._illness import Finding
from moebius.lab.report.gate_names import expert_path
from moebius.lab.training.expert_alone import ExpertAlone
from moebius.lab.training.gate_places import GatePlace, find_gates
from moebius.lab.training.outcome import Trained


def run_findings(data: Dataset, trained: Trained) -> list[Finding]:
    """The findings of all illnesses that need no further pass of the model.

    What needs one (other routes, gradients, experts' losses) is left to `moebius diagnose`.

    Arguments:
        data: the rows.
        trained: the outcome.
    """
    places = {place.name: place for place in find_gates(trained.model)}
    findings: list[Finding] = []
    for gate, weights in trained.test.gates.items():
        place = places.get(gate)
        if place is None or place.gate is None or isinstance(place.gate, Uniform) or gate in trained.test.averaged:
            continue
        reached = torch.isfinite(weights).all(1)
        if reached.any():
            findings += find_illnesses(_examine(data, trained, place, weights, reached))
    return findings


def _examine(data: Dataset, trained: Trained, place: GatePlace, weights: Tensor, reached: Tensor) -> Examination:
    test = trained.test
    groups = {"domain": test.domains[reached]}
    if data.classes and isinstance(test.labels, Tensor) and test.labels.ndim == 1:
        groups["class"] = test.labels[reached].clamp(min=NO_GROUP)
    columns = {"losses": test.losses, "scores": test.scores, "confidence": test.probabilities}
    columns = {name: values for name, values in columns.items() if values is not None and values.ndim == 1}
    alone = _experts(trained.alone, place)
    if alone:
        columns["expert_scores"] = torch.stack([expert.scores.float() for expert in alone], 1)
        if all(expert.predictions.ndim == 1 for expert in alone) and data.classes:
            columns["expert_predictions"] = torch.stack([expert.predictions for expert in alone], 1)
            columns["expert_confidence"] = torch.stack([expert.confidence for expert in alone], 1)
    of_gate = {name: values[reached] for name, values in columns.items()}
    weights = weights[reached].float()
    names = {by: each for by, each in (("class", data.classes), ("domain", data.domains)) if by in groups and each}
    rows = RoutedRows(weights, k=int((weights != 0).sum(1).max()), groups=groups, names=names, **of_gate)
    return Examination(
        place.name,
        rows,
        learns=place.router.trains_gate and any(each.requires_grad for each in place.gate.parameters()),
        outermost=place.path == "",
        expert_classes=tuple(expert.classes for expert in alone),
    )


def _experts(alone: Sequence[ExpertAlone], place: GatePlace) -> list[ExpertAlone]:
    """The experts of a gate by themselves, in its order; empty where one of them is a mixture."""
    by_path = {path: expert for expert in alone for path in expert.paths}
    paths = [expert_path(place.name, number) for number in range(place.count)]
    return [by_path[path] for path in paths] if all(path in by_path for path in paths) else []
