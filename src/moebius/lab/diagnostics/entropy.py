"""Entropies of a gate: of single rows, and of the mean weights."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import entr

from moebius.lab.diagnostics._arrays import ROUNDING, row_entropies, row_shares
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows


def entropy(weights: Float[np.ndarray, "T E"]) -> pd.DataFrame:
    """How sharply a gate selects on each row, and how evenly it uses the experts over all rows.

    row = mean_i H(p_i),  marginal = H(mean_i p_i),  p_i = |G(x_i)| / Σ_e |G(x_i)_e|,  H(p) = −Σ_e p_e ln p_e

    marginal − row is the mutual information of input and expert: 0 for a gate whose weights do not depend on its input.

    Arguments:
        weights: gate weights of at least one row.

    Returns:
        One row: row, marginal (nats), row_experts = exp(row), effective_experts = exp(marginal).

    Example:
        >>> entropy(np.array([[1.0, 0.0], [0.0, 1.0]])).round(3)
           row  marginal  row_experts  effective_experts
        0  0.0     0.693          1.0                2.0

    Reference: ours.
    """
    row, marginal = float(row_entropies(weights).mean()), float(entr(row_shares(weights).mean(0)).sum())
    return pd.DataFrame(
        {"row": [row], "marginal": [marginal], "row_experts": [np.exp(row)], "effective_experts": [np.exp(marginal)]}
    )


def table(rows: GateRows) -> Frame:
    """Entropies over the split, the median over rows of the largest weight, and the number of experts."""
    weights = rows.weights
    # Weights outside [0, 1] are activations, where only the proportions show whether one expert outweighs the others.
    in_unit_interval = weights.min() >= -ROUNDING and weights.max() <= 1 + ROUNDING
    largest_T = (weights if in_unit_interval else row_shares(weights)).max(1)
    return entropy(weights).assign(largest_weight=float(np.median(largest_T)), experts=weights.shape[1])
