"""Selections made of chosen experts, or of weights that are zero where no expert was chosen."""

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moebius.core.routing import Selection

# A compiled or exported graph is for any number of rows; torch's own annotations know numbers only.
if TYPE_CHECKING:
    Rows = int
else:
    Rows = int | torch.SymInt


def top_k_selection(expert_TK: Int[Tensor, "T K"], weight_TK: Float[Tensor, "T K"]) -> Selection:
    """K assignments a row; those of weight 0 are not kept."""
    rows, chosen = expert_TK.shape
    row_A = torch.arange(rows, device=expert_TK.device).repeat_interleave(chosen)
    weight_A = weight_TK.flatten()
    return Selection(row_A, expert_TK.flatten(), weight_A, weight_A != 0)


def single_selection(
    expert_T: Int[Tensor, " T"], probs: Float[Tensor, "T E"]
) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"], Selection]:
    """Weights, log-weights and selection of one expert a row, with weight 1 and no gradient; in the form of `probs`."""
    # shape[0] and not len, here and below: that is a number to torch.export, and would be the only number of rows.
    row_T = torch.arange(expert_T.shape[0], device=expert_T.device)
    selection = Selection(row_T, expert_T, torch.ones_like(row_T, dtype=probs.dtype), torch.ones_like(row_T).bool())
    weights = torch.zeros_like(probs).scatter(1, expert_T.unsqueeze(1), 1.0)
    return weights, weights.log(), selection


def weighted_selection(weights: Float[Tensor, "T E"]) -> Selection:
    """T·E assignments, kept where a weight is not 0: for routers whose number of experts varies from row to row."""
    rows, experts = weights.shape
    place_A = torch.arange(rows * experts, device=weights.device)
    return Selection(place_A // experts, place_A % experts, weights.flatten(), weights.flatten() != 0)


def expert_counts(
    expert_A: Int[Tensor, " A"], experts: Rows, kept_A: Bool[Tensor, " A"] | None = None
) -> Float[Tensor, " E"]:
    """How many assignments each expert got, or how many of the kept ones."""
    ones_A = torch.ones_like(expert_A, dtype=torch.float32) if kept_A is None else kept_A.float()
    return ones_A.new_zeros(experts).index_add(0, expert_A, ones_A)


def top_experts(scores: Float[Tensor, "T E"], k: int) -> Int[Tensor, "T K"]:
    """The k experts with the largest scores; of several that tie for one place the first, for more torch.topk's."""
    return scores.argmax(-1, keepdim=True) if k == 1 else scores.topk(k, -1).indices


def sort_scores(scores: Float[Tensor, "T E"]) -> tuple[Float[Tensor, "T E"], Int[Tensor, "T E"]]:
    """The scores, the largest first, and whose they are; of experts that tie the first comes first."""
    if torch.compiler.is_exporting():
        # ONNX has no stable sort; its choice of the largest keeps the order of those that tie, though.
        return scores.topk(scores.shape[1], -1)
    return torch.sort(scores, dim=-1, descending=True, stable=True)


def whole_k(k: float | int, experts: int) -> int:
    """The whole number of experts that a `k` means which a schedule may have left between two: from 1 to E."""
    return min(max(round(k), 1), experts)


def expert_capacity(capacity: float | int, rows: Rows, experts: int) -> Rows:
    """⌈capacity · T / E⌉ rows, at most T: how many one expert takes."""
    # 1.1 · 50 / 5 is a little more than 11 in floating point, which is no reason for a twelfth.
    return min(rows, math.ceil(capacity * rows / experts - 1e-6))
