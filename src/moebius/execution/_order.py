"""Assignments in the order of their experts."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def sort_by_expert(
    expert_A: Int[Tensor, " A"], kept_A: Bool[Tensor, " A"], experts: int
) -> tuple[Int[Tensor, " A"], Int[Tensor, " E"]]:
    """The places of the assignments, those of expert 0 first, and how many each expert has.

    What is not kept stands at the end and is not counted; within an expert the order is that of the assignments.

    Example:
        >>> order, counts = sort_by_expert(torch.tensor([1, 0, 1, 0]), torch.tensor([True, True, True, False]), 3)
        >>> order.tolist(), counts.tolist()
        ([1, 0, 2, 3], [1, 2, 0])
    """
    key_A = torch.where(kept_A, expert_A, experts)
    counts = torch.zeros(experts + 1, dtype=torch.long, device=key_A.device).index_add(0, key_A, torch.ones_like(key_A))
    return torch.sort(key_A, stable=True).indices, counts[:experts]


def sort_few_by_expert(
    expert_A: Int[Tensor, " A"], kept_A: Bool[Tensor, " A"], experts: int
) -> tuple[list[int], list[int]]:
    """The same as lists, of kept assignments alone: for a handful on a CPU, where tensors would take longer.

    Example:
        >>> sort_few_by_expert(torch.tensor([1, 0, 1, 0]), torch.tensor([True, True, True, False]), 3)
        ([1, 0, 2], [1, 2, 0])
    """
    chosen = expert_A.tolist()
    order = sorted((place for place, kept in enumerate(kept_A.tolist()) if kept), key=chosen.__getitem__)
    counts = [0] * experts
    for place in order:
        counts[chosen[place]] += 1
    return order, counts
