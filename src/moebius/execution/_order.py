"""Orders assignments by expert."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def sort_by_expert(
    expert_A: Int[Tensor, " A"], kept_A: Bool[Tensor, " A"], experts: int
) -> tuple[Int[Tensor, " A"], Int[Tensor, " E"]]:
    """The indices of the assignments, those of expert 0 first, and the number of kept assignments of each expert.

    Assignments that are not kept come last and are not counted; those of one expert stay in their order.

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
    """`sort_by_expert` of the kept assignments only, as lists: faster than tensors for a few assignments on a CPU.

    Example:
        >>> sort_few_by_expert(torch.tensor([1, 0, 1, 0]), torch.tensor([True, True, True, False]), 3)
        ([1, 0, 2], [1, 2, 0])
    """
    expert_numbers = expert_A.tolist()
    order = sorted((index for index, kept in enumerate(kept_A.tolist()) if kept), key=expert_numbers.__getitem__)
    counts = [0] * experts
    for index in order:
        counts[expert_numbers[index]] += 1
    return order, counts
