"""Agreement of experts: how often two of them predict the same."""

import numpy as np
import pandas as pd
import torch

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.statistics.wilson import wilson


class ExpertAgreement(Measure):
    """How often each pair of experts predicts the same class.

    overlap(i, j) = share of rows with prediction_i = prediction_j;  kappa = (overlap − null) / (1 − null)

    Range: overlap 0 … 1; kappa up to 1, for experts that always agree (a redundant pair), 0 by chance.
    Null: Σ_c p_i(c) p_j(c), the overlap of experts that predict each class as often, independently of each other.

    The frame has a line for each pair with expert < other: expert, other, overlap, low and high (95 %), null, kappa.

    Example:
        >>> rows = RoutedRows(torch.ones(4, 2), expert_predictions=torch.tensor([[0, 0], [1, 1], [0, 1], [1, 1]]))
        >>> ExpertAgreement.of(rows)[["overlap", "null", "kappa"]].values.tolist()
        [[0.75, 0.5, 0.5]]

    Reference: Cohen 1960, A Coefficient of Agreement for Nominal Scales; Kuncheva, Whitaker 2003, Measures of Diversity
    in Classifier Ensembles.
    """

    requires = ("expert_predictions",)

    @classmethod
    def accepts(cls, rows: RoutedRows) -> bool:
        """Whether the rows have predictions of classes."""
        return super().accepts(rows) and not rows.expert_predictions.is_floating_point()  # type: ignore[union-attr]

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows on which each pair agrees, and how often each expert predicts each class."""
        assert rows.expert_predictions is not None
        predictions_ET = rows.expert_predictions.to(torch.int32).T.contiguous()
        same = [(predictions_ET == line_T).sum(1) for line_T in predictions_ET]
        self.add("same", torch.stack(same))
        classes = int(predictions_ET.max()) + 1
        cells = predictions_ET.long() + torch.arange(self.experts).unsqueeze(1) * classes
        self.add("classes", torch.bincount(cells.flatten(), minlength=self.experts * classes).view(-1, classes))

    def frame(self) -> pd.DataFrame:
        """A line for each pair."""
        expert, rival = np.triu_indices(self.experts, 1)
        overlap, low, high = wilson(self.rows, self.total("same")[expert, rival])
        shares_EC = self.total("classes") / self.rows
        null = (shares_EC @ shares_EC.T)[expert, rival]
        kappa = np.where(null < 1, (overlap - null) / np.where(null < 1, 1 - null, 1), 1.0)
        columns = {"expert": expert, "other": rival, "overlap": overlap, "low": low, "high": high}
        return pd.DataFrame({**columns, "null": null, "kappa": kappa})
