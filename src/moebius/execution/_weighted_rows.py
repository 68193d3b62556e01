"""Sums of the experts' outputs for each row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def sum_by_row(
    values_P: Float[Tensor, "P D"], row_P: Int[Tensor, " P"], weight_P: Float[Tensor, " P"] | None, rows: int
) -> Float[Tensor, "{rows} D"]:
    """Σ weight_p · values_p over the p of each row, in the format of the values; the sums are in float32 at least.

    The factors are rounded to the format of the values, as in the gradients.

    Arguments:
        values_P: what is summed.
        row_P: the row of each.
        weight_P: the factors; None for 1.
        rows: T, the number of rows; a row that no p has gets 0.

    Example:
        >>> sum_by_row(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), None, 3).flatten().tolist()
        [2.0, 5.0, 0.0]

    Reference: ours. A bag of embeddings is the same sum, and torch has one pass over the values for it.
    """
    if rows == 1 and weight_P is not None:
        return weight_P.to(values_P.dtype).unsqueeze(0) @ values_P
    by_row = torch.argsort(row_P, stable=True)
    count_T = torch.bincount(row_P, minlength=rows)
    starts_T = count_T.cumsum(0) - count_T
    if weight_P is None:
        return F.embedding_bag(by_row, values_P, starts_T, mode="sum")
    weights = weight_P[by_row].to(values_P.dtype)
    return F.embedding_bag(by_row, values_P, starts_T, mode="sum", per_sample_weights=weights)
