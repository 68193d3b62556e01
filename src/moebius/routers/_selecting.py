"""Selections made of chosen experts, or of weights that are zero where no expert was chosen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.routing import Selection


def selected(expert_TK: Int[Tensor, "T K"], weight_TK: Float[Tensor, "T K"]) -> Selection:
    """K assignments a row; those of weight 0 are not kept."""
    rows, chosen = expert_TK.shape
    row_A = torch.arange(rows, device=expert_TK.device).repeat_interleave(chosen)
    weight_A = weight_TK.flatten()
    return Selection(row_A, expert_TK.flatten(), weight_A, weight_A != 0)


def where_weighed(weights: Float[Tensor, "T E"]) -> Selection:
    """T·E assignments, kept where a weight is not 0: for routers whose number of experts varies from row to row."""
    rows, experts = weights.shape
    place_A = torch.arange(rows * experts, device=weights.device)
    return Selection(place_A // experts, place_A % experts, weights.flatten(), weights.flatten() != 0)


def counts(expert_A: Int[Tensor, " A"], experts: int) -> Float[Tensor, " E"]:
    """How many assignments each expert got."""
    return torch.zeros(experts, device=expert_A.device).index_add(
        0, expert_A, torch.ones(len(expert_A), device=expert_A.device)
    )
