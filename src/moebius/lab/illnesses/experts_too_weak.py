"""Experts too weak for their rows: on the rows that an expert gets, it is hardly better than a constant."""

import torch
from torch import Tensor

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import FEWEST_ROWS, list_experts, mean_interval, percent

# The part of a constant's errors that an expert has to avoid.
FLOOR = 0.1
# Where a constant has less error than this, of the rows, there is nothing to learn.
EASY = 0.1


@illness("MB010", "errors that a weak expert avoids, of a constant's", remedies=("add_expert", "refit_gate"))
def experts_too_weak(gate: Examination) -> Symptom | None:
    """On the rows that an expert gets it is hardly better than the best constant answer for them.

    For classes the constant is the most frequent class of these rows, and skill = (score − its share) / (1 − its
    share); for numbers it is their mean, and skill = 1 − error² / variance. Experts whose skill
    seems to be under .1, where the constant itself is not nearly right, are tested together.

    Null: the best constant: 0.

    Reference: ours; the skill score of forecast verification (Murphy 1988).
    """
    errors = _errors(gate)
    if errors is None:
        return None
    chosen = gate.rows.top
    skills: dict[int, Tensor] = {}
    for expert in range(gate.rows.experts):
        rows = (chosen == expert).nonzero().flatten()
        if len(rows) < FEWEST_ROWS:
            continue
        errors_of_expert, constant = errors(expert, rows)
        base = float(constant.double().mean())
        if base >= EASY:
            skills[expert] = (constant.double() - errors_of_expert.double()) / base
    # All that seem weak are tested together: of many experts each one has few rows.
    weak = [expert for expert, values in skills.items() if float(values.mean()) < FLOOR]
    if not weak:
        return None
    skill = mean_interval(torch.cat([skills[expert] for expert in weak]))
    if skill.high >= FLOOR:
        return None
    served = float(torch.isin(chosen, torch.tensor(weak)).double().mean())
    evidence = (
        f"{list_experts(weak)} {'serves' if len(weak) == 1 else 'serve'} {percent(served)} of the rows, with "
        f"{1 - skill.value:.2f} times the errors that a constant answer would make there"
    )
    remedy = (
        "train them longer, or on the rows that they get; make them larger; or add an expert for these rows "
        "(mb.add_expert) and train the gate anew"
    )
    return Symptom(evidence, skill.value, skill.low, skill.high, 0.0, "the best constant answer", remedy, tuple(weak))


def _errors(gate: Examination):
    """(expert, rows) → its errors and those of the best constant there; None where neither is known."""
    rows = gate.rows
    if "class" in rows.groups and rows.expert_scores is not None:
        labels, scores = rows.groups["class"], rows.expert_scores

        def of_classes(expert: int, index: Tensor) -> tuple[Tensor, Tensor]:
            of_rows = labels[index]
            return 1 - scores[index, expert].double(), (of_rows != of_rows.mode().values).double()

        return of_classes
    predictions = rows.expert_predictions
    if gate.targets is not None and predictions is not None and predictions[0, 0].numel() == 1:
        targets, predictions = gate.targets.double(), predictions.flatten(1).double()
        scale = float(targets.var().clamp(min=1e-12))

        def of_numbers(expert: int, index: Tensor) -> tuple[Tensor, Tensor]:
            of_rows = targets[index]
            constant = (of_rows - of_rows.mean()).square() / scale
            return (predictions[index, expert] - of_rows).square() / scale, constant

        return of_numbers
    return None
