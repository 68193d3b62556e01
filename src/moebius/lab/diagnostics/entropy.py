"""Entropies of a gate: of single rows, and of the mean weights."""

import numpy as np
import pandas as pd
from scipy.special import entr

from moebius.lab.diagnostics._arrays import ROUNDING, row_shares
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._null import balanced_loads, entropy_of
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.gate_rows import GateRows


class Entropy(Measure):
    """How sharply a gate selects on each row, and how evenly it uses the experts over all rows.

    row = mean_i H(p_i),  marginal = H(mean_i p_i),  p_i = |G(x_i)| / Σ_e |G(x_i)_e|,  H(p) = −Σ_e p_e ln p_e

    marginal − row is the mutual information of input and expert: 0 for a gate whose weights do not depend on its input.
    These are the weights after the selection; `InputDependence` reads the gate's distribution before it.

    Range: 0 ≤ row ≤ marginal ≤ ln E nats; row_experts = exp(row) and effective_experts = exp(marginal), 1 … E.
    Null: row_null = ln k and marginal_null, for a router that weighs k of the experts alike, at random for each row.

    The frame has one line.

    Example:
        >>> import torch
        >>> frame = Entropy.of(RoutedRows(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), k=1))
        >>> frame[["row", "marginal", "row_experts", "effective_experts"]].round(3)
           row  marginal  row_experts  effective_experts
        0  0.0     0.693          1.0                2.0

    Reference: ours.
    """

    @classmethod
    def table(cls, rows: GateRows) -> pd.DataFrame | None:
        """Also the median over rows of the largest weight, and the number of experts."""
        weights = rows.weights
        # Weights outside [0, 1] are activations, where only the proportions show whether one expert outweighs the rest.
        in_unit_interval = weights.min() >= -ROUNDING and weights.max() <= 1 + ROUNDING
        largest_T = (weights if in_unit_interval else row_shares(weights)).max(1)
        frame = super().table(rows)
        assert frame is not None, "weights are all that it reads"
        return frame.assign(largest_weight=float(np.median(largest_T)), experts=weights.shape[1])

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows' entropies and shares."""
        self.add("entropy", rows.entropies.sum())
        self.add("shares", rows.shares.sum(0))

    def frame(self) -> pd.DataFrame:
        """One line."""
        row = float(self.total("entropy")) / self.rows
        marginal = float(entr(self.total("shares") / self.rows).sum())
        measures = {"row": row, "marginal": marginal, "row_experts": np.exp(row), "effective_experts": np.exp(marginal)}
        null = entropy_of(balanced_loads(self.rows, self.experts, self.k)).mean()
        return pd.DataFrame([{**measures, "row_null": np.log(self.k), "marginal_null": null}])
