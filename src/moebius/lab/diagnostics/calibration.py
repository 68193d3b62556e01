"""Calibration: whether confidence is how often a prediction is right."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.special import bdtr
from torch import Tensor

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows

BINS = 15


class Calibration(Measure):
    """Whether the confidence of the mixture, of each expert and of the gate is how often they are right.

    ECE = Σ_b n_b / T · |mean confidence − mean score| over the n_b rows of each of 15 equal bins b
    gap = mean confidence − mean score

    Scores are 0 or 1. The mixture and the experts are right where their prediction is. Each expert is measured on all
    rows and on those that it wins. The gate is right where the expert with the largest weight has the row's smallest
    loss, and its confidence is the largest share of its distribution.

    Range: ECE 0 … 1; gap −1 … 1, above 0 for overconfidence.
    Null: the mean ECE of a calibrated model with these confidences and as many rows, from sampling alone:
    Σ_b n_b / T · E|X_b / n_b − c_b| with X_b ~ Bin(n_b, c_b), c_b the bin's mean confidence, in closed form; about 2.5
    of 100 such models exceed null_high.

    The frame has a line for each: of (mixture, expert or gate), on (all rows, its rows), expert (−1 where it is none),
    rows, confidence, score, gap, low and high (95 %, of the gap), ece, null, null_high.

    Example:
        >>> rows = RoutedRows(torch.ones(4, 1), confidence=torch.full((4,), 0.9), scores=torch.tensor([1.0, 1, 1, 0]))
        >>> Calibration.of(rows)[["confidence", "score", "gap", "ece", "null"]].round(3).values.tolist()
        [[0.9, 0.75, 0.15, 0.15, 0.131]]

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599, equation 3; the null by the
    mean deviation of the binomial, de Moivre 1730.
    """

    requires = ("confidence", "scores")

    @classmethod
    def accepts(cls, rows: RoutedRows) -> bool:
        """Whether rows have confidences, and scores that are 0 or 1."""
        return super().accepts(rows) and bool(((rows.scores == 0) | (rows.scores == 1)).all())  # type: ignore[union-attr]

    def add_rows(self, rows: RoutedRows) -> None:
        """Add confidences and scores by bin."""
        assert rows.confidence is not None
        assert rows.scores is not None
        self._add_bins("mixture.all rows", rows.confidence.unsqueeze(1), rows.scores.unsqueeze(1))
        if rows.expert_confidence is not None and rows.expert_scores is not None:
            self._add_bins("expert.all rows", rows.expert_confidence, rows.expert_scores)
            index_T1 = rows.top.unsqueeze(1)
            confidence_T1, score_T1 = rows.expert_confidence.gather(1, index_T1), rows.expert_scores.gather(1, index_T1)
            self._add_bins("expert.its rows", confidence_T1, score_T1, index_T1)
        if rows.expert_losses is not None:
            chosen_T1 = rows.expert_losses.gather(1, rows.top.unsqueeze(1))
            confidence_T1 = rows.prob_shares.amax(1, keepdim=True)
            self._add_bins("gate.all rows", confidence_T1, chosen_T1 <= rows.expert_losses.amin(1, keepdim=True))

    def _add_bins(self, name: str, confidence: Tensor, scores: Tensor, expert: Tensor | None = None) -> None:
        """Add number, confidence, score and squared gap of the values in each bin of each expert."""
        confidence, scores = confidence.double(), scores.double()
        columns = confidence.shape[1] if expert is None else self.experts
        expert = torch.arange(confidence.shape[1]) if expert is None else expert
        bins = (confidence * BINS).long().clamp_(0, BINS - 1) + expert * BINS
        gap = confidence - scores
        values = (torch.ones_like(confidence), confidence, scores, gap.square())
        sums = [torch.bincount(bins.flatten(), value.flatten(), columns * BINS) for value in values]
        self.add(name, torch.stack(sums, -1).view(columns, BINS, 4))

    def bins(self) -> Iterator[tuple[str, str, int, Float[np.ndarray, "B 4"]]]:
        """What it is of, on which rows, the expert or −1, and the sums of each bin, of all that have rows."""
        for name in ("mixture.all rows", "expert.all rows", "expert.its rows", "gate.all rows"):
            of, on = name.split(".")
            for number, sums_BN in enumerate(self.total(name) if name in self.sums else ()):
                if sums_BN[:, 0].sum():
                    yield of, on, number if of == "expert" else -1, sums_BN

    def frame(self) -> pd.DataFrame:
        """A line for the mixture, for each expert twice, and for the gate."""
        return pd.DataFrame([{"of": of, "on": on, "expert": e, **_line(sums)} for of, on, e, sums in self.bins()])


def _line(sums_BN: Float[np.ndarray, "B 4"]) -> dict[str, float | int]:
    rows, confidence, score, squares = sums_BN.sum(0)
    gap, low, high = mean_interval(rows, confidence - score, squares)
    count_B = np.maximum(sums_BN[:, 0], 1)
    share_B = sums_BN[:, 0] / rows
    error_B = np.abs(sums_BN[:, 1] - sums_BN[:, 2]) / count_B
    deviation_B, spread_B = _sampling(count_B, np.clip(sums_BN[:, 1] / count_B, 0, 1))
    null = float(share_B @ deviation_B)
    return {
        "rows": int(rows),
        "confidence": confidence / rows,
        "score": score / rows,
        "gap": float(gap),
        "low": float(low),
        "high": float(high),
        "ece": float(share_B @ error_B),
        "null": null,
        "null_high": null + 1.96 * float(np.sqrt(share_B**2 @ spread_B)),
    }


def _sampling(count: Float[np.ndarray, " B"], p: Float[np.ndarray, " B"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of |X / n − p| for X ~ Bin(n, p): E|X − np| = 2 (1 − p) m P[X = m], m = ⌊np⌋ + 1."""
    above = np.minimum(np.floor(count * p) + 1, count)
    draws = count.astype(np.int64)
    probability = bdtr(above, draws, p) - bdtr(above - 1, draws, p)
    mean = 2 * (1 - p) * above * probability / count
    return mean, np.maximum(p * (1 - p) / count - mean**2, 0)
