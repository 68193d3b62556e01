"""Builds selections from chosen experts or from weights, and counts and ranks experts."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moebius.core.routing import Routing, Selection

# In compiled and exported graphs the number of rows is symbolic; torch's own annotations allow only int.
if TYPE_CHECKING:
    Rows = int
else:
    Rows = int | torch.SymInt


def top_k_selection(expert_TK: Int[Tensor, "T K"], weight_TK: Float[Tensor, "T K"]) -> Selection:
    """K assignments for each row; those of weight 0 are not kept."""
    rows, k = expert_TK.shape
    row_A = torch.arange(rows, device=expert_TK.device)
    if k > 1:
        row_A = row_A.unsqueeze(1).expand(rows, k).flatten()
    weight_A = weight_TK.flatten()
    return Selection(row_A, expert_TK.flatten(), weight_A, weight_A != 0)


def single_selection(
    expert_T: Int[Tensor, " T"], probs: Float[Tensor, "T E"]
) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"], Selection]:
    """Weights, log-weights and selection of one expert for each row, of weight 1, without gradient.

    Weights and log-weights have the shape and number format of `probs`.
    """
    # shape[0] and not len, here and below: torch.export would fix the number of rows to the value of len.
    row_T = torch.arange(expert_T.shape[0], device=expert_T.device)
    selection = Selection(row_T, expert_T, torch.ones_like(row_T, dtype=probs.dtype), torch.ones_like(row_T).bool())
    weights = torch.zeros_like(probs).scatter(1, expert_T.unsqueeze(1), 1.0)
    return weights, weights.log(), selection


def with_selection(
    routing: Routing, weights: Float[Tensor, "T E"], log_weights: Float[Tensor, "T E"], selection: Selection
) -> Routing:
    """A routing with other experts: scores and probabilities stay, the weights of heads and classes go."""
    return replace(
        routing,
        weights=weights,
        log_weights=log_weights,
        selection=selection,
        head_weights=None,
        straight_through=False,
    )


def weighted_selection(weights: Float[Tensor, "T E"]) -> Selection:
    """T·E assignments, kept where the weight is not 0: for routers whose number of experts varies between rows."""
    rows, experts = weights.shape
    place_A = torch.arange(rows * experts, device=weights.device)
    return Selection(place_A // experts, place_A % experts, weights.flatten(), weights.flatten() != 0)


def expert_counts(
    expert_A: Int[Tensor, " A"], experts: Rows, kept_A: Bool[Tensor, " A"] | None = None
) -> Float[Tensor, " E"]:
    """The number of assignments of each expert; where `kept_A` is given, of the kept ones."""
    ones_A = torch.ones_like(expert_A, dtype=torch.float32) if kept_A is None else kept_A.float()
    return ones_A.new_zeros(experts).index_add(0, expert_A, ones_A)


def top_experts(scores: Float[Tensor, "T E"], k: int) -> Int[Tensor, "T K"]:
    """The k experts with the largest scores; ties go to the first expert for k = 1, else as torch.topk decides."""
    return scores.argmax(-1, keepdim=True) if k == 1 else scores.topk(k, -1).indices


def sort_scores(scores: Float[Tensor, "T E"]) -> tuple[Float[Tensor, "T E"], Int[Tensor, "T E"]]:
    """The scores in descending order and the experts in that order; tied experts keep their order."""
    if torch.compiler.is_exporting():
        # ONNX has no stable sort, but its top-k keeps the order of tied experts.
        return scores.topk(scores.shape[1], -1)
    return torch.sort(scores, dim=-1, descending=True, stable=True)


def whole_k(k: float | int, experts: int) -> int:
    """`k` as a whole number from 1 to E: a schedule may give a `k` between two numbers."""
    return min(max(round(k), 1), experts)


def expert_capacity(capacity: float | int, rows: Rows, experts: int) -> Rows:
    """⌈capacity · T / E⌉, at most T: the largest number of rows of one expert."""
    # In floating point 1.1 · 50 / 5 is slightly more than 11, and must not give 12.
    return min(rows, math.ceil(capacity * rows / experts - 1e-6))
