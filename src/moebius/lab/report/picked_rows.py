"""The rows that show what each expert of a gate does: its surest ones, its least sure ones, and its mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

# What is picked for an expert, by number in the file `examples.safetensors`.
KINDS = ("most", "least", "wrong")
# Two weights that differ by less are equal, as rounding leaves them.
TIE = 1e-6


@dataclass(frozen=True, eq=False)
class PickedRows:
    """Rows of one kind of one expert.

    Arguments:
        expert: its number.
        kind: "most" or "least", for the rows with the largest and the smallest weights; "wrong", for mistakes.
        rows: positions in the split, the most telling first.
    """

    expert: int
    kind: str
    rows: Int[np.ndarray, " N"]


def win_experts(weights: Float[np.ndarray, "T E"]) -> Int[np.ndarray, " T"]:
    """The expert with the largest weight in each row; −1 where several have it, so that the row is nobody's.

    Example:
        >>> win_experts(np.array([[0.9, 0.1], [0.5, 0.5]])).tolist()
        [0, -1]
    """
    top_two = np.sort(weights, 1)[:, -2:]
    is_tied = top_two[:, 1] - top_two[:, 0] < TIE if weights.shape[1] > 1 else np.zeros(len(weights), bool)
    return np.where(is_tied, -1, weights.argmax(1))


def pick_rows(
    weights: Float[np.ndarray, "T E"],
    scores: Shaped[np.ndarray, " T"],
    losses: Float[np.ndarray, " T"],
    experts: Sequence[int],
    count: int,
) -> list[PickedRows]:
    """Rows among those that each expert wins; kinds without rows are left out.

    An expert whose weights are all equal has no "least": its rows are then in the order of the split. A mistake is a
    row that is predicted wrong where scores are right or wrong, and any row for another score; the largest losses come
    first.

    Arguments:
        weights: of the gate.
        scores, losses: of the whole model for each row.
        experts: those to pick rows for.
        count: most rows of a kind.

    Example:
        >>> weights = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
        >>> for each in pick_rows(weights, np.array([1, 1, 0]), np.array([0.1, 0.2, 2.0]), [0], 1):
        ...     print(each.kind, each.rows)
        most [0]
        least [1]
        wrong [2]
    """
    winner_T = win_experts(weights)
    is_binary = bool(np.isin(scores, (0, 1)).all())
    picked = []
    for expert in experts:
        rows = np.flatnonzero(winner_T == expert)
        of_rows = weights[rows, expert]
        most = rows[np.argsort(-of_rows, kind="stable")]
        is_level = not len(rows) or of_rows.max() - of_rows.min() < TIE
        least = most[:0] if is_level else most[::-1][: max(len(most) - count, 0)]
        wrong = rows[scores[rows] < 0.5] if is_binary else rows
        wrong = wrong[np.argsort(-losses[wrong], kind="stable")]
        lists = zip(KINDS, (most, least, wrong), strict=True)
        picked += [PickedRows(expert, kind, each[:count]) for kind, each in lists if len(each)]
    return picked
