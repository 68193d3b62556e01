"""Sums of the experts' outputs for each row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def sum_by_row(
    values_P: Float[Tensor, "P D"],
    row_A: Int[Tensor, " A"],
    weight_A: Float[Tensor, " A"] | None,
    rows: int,
    place_A: Int[Tensor, " A"] | None = None,
) -> Float[Tensor, "{rows} D"]:
    """Σ weight_a · values_a over the a of each row, in the format of the values; the sums are in float32 at least.

    The factors are rounded to the format of the values, as in the gradients.

    Arguments:
        values_P: what is summed.
        row_A: the row of each.
        weight_A: the factors; None for 1.
        rows: T, the number of rows; a row that no a has gets 0.
        place_A: where in `values_P` each is; None for the first A.

    Example:
        >>> sum_by_row(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), None, 3).flatten().tolist()
        [2.0, 5.0, 0.0]

    Reference: ours. A bag of embeddings is the same sum, and torch has one pass over the values for it.
    """
    if rows == 1 and weight_A is not None:
        values_A = values_P[: len(row_A)] if place_A is None else values_P[place_A]
        return weight_A.to(values_P.dtype).unsqueeze(0) @ values_A
    by_row = torch.argsort(row_A, stable=True)
    places = by_row if place_A is None else place_A[by_row]
    count_T = torch.bincount(row_A, minlength=rows)
    starts_T = count_T.cumsum(0) - count_T
    if weight_A is None:
        return F.embedding_bag(places, values_P, starts_T, mode="sum")
    weights = weight_A[by_row].to(values_P.dtype)
    return F.embedding_bag(places, values_P, starts_T, mode="sum", per_sample_weights=weights)
