"""Checks and reductions of gate weights that several diagnostics share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import entr

from moebius.kit.errors import ArgumentError

# A float32 softmax may leave [0, 1] by rounding; weights further outside are no distribution.
ROUNDING = 1e-5


def check_finite(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """`weights` if all of them are finite.

    Raises:
        ArgumentError: a row has NaN or infinite weights.
    """
    if not np.isfinite(weights).all():
        row = int(np.flatnonzero(~np.isfinite(weights).all(1))[0])
        rule = f"needs finite gate weights, but row {row} has others"
        raise ArgumentError("weights", rule, weights[row].tolist(), "weights[np.isfinite(weights).all(1)]")
    return weights


def check_indices(
    groups: Int[np.ndarray, " T"], names: Sequence[str], argument: str = "groups"
) -> Int[np.ndarray, " T"]:
    """`groups` if each of them is an index into `names`.

    Raises:
        ArgumentError: an index is negative or too large; `argument` is the name in its message.
    """
    if groups.size and (groups.min() < 0 or groups.max() >= len(names)):
        worst = int(groups.max() if groups.max() >= len(names) else groups.min())
        rule = f"needs indices of the {len(names)} names, 0 to {len(names) - 1}"
        fix = f"pass {worst + 1} names" if worst >= 0 else f"leave out the rows where {argument} is negative"
        raise ArgumentError(argument, rule, worst, fix)
    return groups


def row_shares(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """Each row as a distribution: |w_e| / Σ_j |w_j|; a row of zeros stays zero."""
    size_TE = np.abs(check_finite(weights)).astype(np.float64)
    total_T1 = size_TE.sum(1, keepdims=True)
    return np.divide(size_TE, total_T1, out=size_TE, where=total_T1 > 0)


def row_entropies(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, " T"]:
    """Entropy of each row's shares in nats: 0 for one expert, ln E where all experts have the same weight."""
    return entr(row_shares(weights)).sum(1)


def row_wins(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """1 at the largest weight of each row, 0 elsewhere; n experts with the same largest weight get 1/n each."""
    top_TE = (check_finite(weights) == weights.max(1, keepdims=True)).astype(np.float64)
    return top_TE / top_TE.sum(1, keepdims=True)


def whole_counts(counts: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Counts of rows as whole numbers where all of them are, as they are where ties have divided rows.

    Example:
        >>> whole_counts(np.array([2.0, 1.0])).tolist(), whole_counts(np.array([1.5, 0.5])).tolist()
        ([2, 1], [1.5, 0.5])
    """
    rounded = np.rint(counts)
    return rounded.astype(np.int64) if np.allclose(counts, rounded, rtol=0, atol=1e-9) else counts


def sum_by_group(
    values: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], count: int
) -> tuple[Float[np.ndarray, "G E"], Int[np.ndarray, " G"]]:
    """Sum of `values` over the rows of each of `count` groups, and the number of those rows."""
    sums = [np.bincount(groups, column, minlength=count) for column in values.T]
    return np.stack(sums, 1).astype(np.float64), np.bincount(groups, minlength=count)
