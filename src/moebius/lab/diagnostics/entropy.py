"""Entropies of a gate."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import entr

from moebius.lab.diagnostics._arrays import entropies, shares


def entropy(weights: Float[np.ndarray, "T E"]) -> pd.DataFrame:
    """How decided a gate is on each row, and how evenly it uses the experts over all rows.

    row = mean_i H(p_i),  marginal = H(mean_i p_i),  p_i = |G(x_i)| / Σ_e |G(x_i)_e|,  H(p) = −Σ_e p_e ln p_e

    marginal − row is the mutual information of input and expert: 0 for a gate that does not look at its input.

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
    row, marginal = float(entropies(weights).mean()), float(entr(shares(weights).mean(0)).sum())
    return pd.DataFrame(
        {"row": [row], "marginal": [marginal], "row_experts": [np.exp(row)], "effective_experts": [np.exp(marginal)]}
    )
