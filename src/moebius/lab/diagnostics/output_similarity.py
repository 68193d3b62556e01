"""Similarity of experts' outputs, whatever the rows are sent to."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows

# Numbers of a row's outputs, of all experts together, up to which all their products are kept.
MOST_FEATURES = 1024
# Numbers at once: 32 MB of float64.
MOST_NUMBERS = 4_000_000


class OutputSimilarity(Measure):
    """How alike the outputs f of each pair of experts are on the same rows.

    concordance(i, j) = 1 − E|f_i − f_j|² / (V_i + V_j + |m_i − m_j|²),  m the mean and V = E|f − m|² of an output
    cka(i, j) = ‖C_ij‖² / (‖C_ii‖ ‖C_jj‖),  C_ij the covariance of f_i and f_j

    Concordance is 1 for equal outputs only; CKA also for outputs that are rotations or multiples of each other.

    Range: concordance −1 … 1; cka 0 … 1.
    Null: of independent outputs: concordance 0; cka_null = tr(C_ii) tr(C_jj) / (T ‖C_ii‖ ‖C_jj‖), which is not 0 for
    few rows of many features.

    The frame has a line for each pair with expert < other: expert, other, concordance, null and, where the outputs of
    all experts for a row are at most 1,024 numbers, cka and cka_null.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]])
        >>> OutputSimilarity.of(RoutedRows(torch.ones(2, 2), outputs=outputs))[["concordance", "cka"]].round(3)
           concordance  cka
        0        0.444  1.0

    Reference: Lin 1989, A Concordance Correlation Coefficient; Kornblith et al. 2019, Similarity of Neural Network
    Representations Revisited, arXiv:1905.00414 (linear CKA).
    """

    requires = ("outputs",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the outputs and their products."""
        assert rows.outputs is not None
        outputs_TEN = rows.outputs.flatten(2) if rows.outputs.ndim > 2 else rows.outputs.unsqueeze(2)
        features = outputs_TEN.shape[1] * outputs_TEN.shape[2]
        step = max(1, MOST_NUMBERS // max(1, features))
        for piece_TEN in outputs_TEN.split(step):
            piece_TEN = piece_TEN.double()
            self.add("outputs", piece_TEN.sum(0))
            if features <= MOST_FEATURES:
                flat_TF = piece_TEN.flatten(1)
                self.add("products", flat_TF.T @ flat_TF)
            else:
                by_expert = piece_TEN.transpose(0, 1).flatten(1)
                self.add("traces", by_expert @ by_expert.T)

    def frame(self) -> pd.DataFrame:
        """A line for each pair."""
        expert, rival = np.triu_indices(self.experts, 1)
        mean_EN = self.total("outputs") / self.rows
        columns = {"expert": expert, "other": rival}
        blocks = None
        if "products" in self.sums:
            size, flat = mean_EN.shape[1], mean_EN.ravel()
            covariance = self.total("products") / self.rows - np.outer(flat, flat)
            blocks = covariance.reshape(self.experts, size, self.experts, size)
            covariance_EE = np.einsum("iaja->ij", blocks)
        else:
            covariance_EE = self.total("traces") / self.rows - mean_EN @ mean_EN.T
        variance_E = np.maximum(covariance_EE.diagonal(), 0)
        apart = ((mean_EN[expert] - mean_EN[rival]) ** 2).sum(1)
        scale = variance_E[expert] + variance_E[rival] + apart
        concordance = np.where(scale > 0, 2 * covariance_EE[expert, rival] / np.where(scale > 0, scale, 1), 1.0)
        columns |= {"concordance": concordance, "null": np.zeros(len(expert))}
        if blocks is not None:
            norm_EE = (blocks**2).sum((1, 3))
            scale = np.sqrt(norm_EE[expert, expert] * norm_EE[rival, rival])
            divisor = np.where(scale > 0, scale, 1)
            columns["cka"] = norm_EE[expert, rival] / divisor
            columns["cka_null"] = np.minimum(variance_E[expert] * variance_E[rival] / self.rows / divisor, 1)
        return pd.DataFrame(columns)
