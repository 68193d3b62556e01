"""What several diagnostics need of gate weights."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

from moebius.kit.errors import ArgumentError

# float32 softmax rows may leave [0, 1] by rounding; more than this is a gate that is no distribution.
ROUNDING = 1e-5


def finite(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """`weights` if every one is a number."""
    if not np.isfinite(weights).all():
        row = int(np.flatnonzero(~np.isfinite(weights).all(1))[0])
        rule = f"needs finite gate weights, but row {row} has others"
        raise ArgumentError("weights", rule, weights[row].tolist(), "leave out the rows that a nested gate never saw")
    return weights


def known(groups: Int[np.ndarray, " T"], names: Sequence[str], argument: str = "groups") -> Int[np.ndarray, " T"]:
    """`groups` if each of them has a name."""
    if groups.size and (groups.min() < 0 or groups.max() >= len(names)):
        worst = int(groups.max() if groups.max() >= len(names) else groups.min())
        raise ArgumentError(argument, f"needs indices of the {len(names)} names given, 0 to {len(names) - 1}", worst)
    return groups


def shares(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """Each row as a distribution: |w_e| / Σ_j |w_j|; a row of zeros stays one."""
    size_TE = np.abs(finite(weights)).astype(np.float64)
    total_T1 = size_TE.sum(1, keepdims=True)
    return np.divide(size_TE, total_T1, out=size_TE, where=total_T1 > 0)


def entropies(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, " T"]:
    """Entropy of each row's shares in nats: 0 for one expert, ln E for all alike."""
    return entr(shares(weights)).sum(1)


def wins(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "T E"]:
    """1 where the row's largest weight is; experts that tie divide the row (a uniform gate prefers nobody)."""
    top_TE = (finite(weights) == weights.max(1, keepdims=True)).astype(np.float64)
    return top_TE / top_TE.sum(1, keepdims=True)


def by_group(
    values: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], count: int
) -> tuple[Float[np.ndarray, "G E"], Int[np.ndarray, " G"]]:
    """Sum of `values` over the rows of each of `count` groups, and the number of those rows."""
    sums = [np.bincount(groups, column, minlength=count) for column in values.T]
    return np.stack(sums, 1).astype(np.float64), np.bincount(groups, minlength=count)
