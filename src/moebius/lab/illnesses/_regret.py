"""Rows that another expert would have served better."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._intervals import Mean, share_interval
from moebius.lab.illnesses._use import chosen_experts


def regrets(gate: Examination) -> Float[Tensor, " T"] | None:
    """The loss of each row's expert above that of the best one; None where experts' losses are not known."""
    losses = gate.rows.expert_losses
    if losses is None:
        return None
    return losses.gather(1, chosen_experts(gate.rows).unsqueeze(1)).squeeze(1) - losses.amin(1)


def wrong_choices(gate: Examination) -> Bool[Tensor, " T"] | None:
    """The rows that another expert serves clearly better: it has a higher score by a half, or far less loss."""
    scores, losses = gate.rows.expert_scores, regrets(gate)
    if losses is None:
        return None
    if scores is not None:
        chosen = scores.gather(1, chosen_experts(gate.rows).unsqueeze(1)).squeeze(1)
        return scores.double().amax(1) - chosen.double() >= 0.5
    spread = float(losses.std()) if len(losses) > 1 else 0.0
    return losses > max(spread, 1e-6)


def share_of_wrong_choices(gate: Examination) -> Mean | None:
    """The share of such rows."""
    wrong = wrong_choices(gate)
    return None if wrong is None else share_interval(float(torch.count_nonzero(wrong)), len(wrong))
