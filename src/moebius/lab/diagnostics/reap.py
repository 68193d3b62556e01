"""REAP: how much an expert adds to the rows that it runs for."""

import numpy as np
import pandas as pd
import torch

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class Reap(Measure):
    """How large each expert's weighted output is on the rows for which it runs: what pruning by REAP ranks by.

    S_e = mean over rows for which e runs of w_ie · ‖f_e(x_i)‖₂

    Range: 0 … ∞ in units of the output, for weights of at least 0; the experts with the smallest scores go first.
    Null: mean weight on those rows · mean norm over all rows: the score where weight and norm have nothing to do with
    each other, under a permuted gate.

    The frame has a line for each expert that runs: expert, rows, reap, low and high (95 %), null.

    Example:
        >>> weights, outputs = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]] * 2)
        >>> Reap.of(RoutedRows(weights, outputs=outputs))[["rows", "reap", "null"]].values.tolist()
        [[2.0, 3.75, 3.75], [1.0, 0.5, 0.5]]

    Reference: Lasby et al. 2025, REAP the Experts: Why Pruning Prevails for One-Shot MoE Compression, arXiv:2510.13999.
    """

    requires = ("outputs",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add weights, norms and their products."""
        assert rows.outputs is not None
        outputs_TEN = rows.outputs.flatten(2) if rows.outputs.ndim > 2 else rows.outputs.unsqueeze(2)
        norm_TE = torch.linalg.vector_norm(outputs_TEN, dim=2).double()
        weights_TE = torch.where(rows.kept, rows.weights, 0).double()
        product_TE = weights_TE * norm_TE
        sums = (rows.counts, product_TE.sum(0), product_TE.square().sum(0), weights_TE.sum(0), norm_TE.sum(0))
        self.add("sums", torch.stack([values.double() for values in sums]))

    def frame(self) -> pd.DataFrame:
        """A line for each expert that runs."""
        expert = np.flatnonzero(self.total("sums")[0])
        count, total, squares, weight, norm = self.total("sums")[:, expert]
        reap, low, high = mean_interval(count, total, squares)
        columns = {"expert": expert, "rows": count.astype(np.int64), "reap": reap, "low": low, "high": high}
        return pd.DataFrame({**columns, "null": weight / count * norm / self.rows})
