"""Reliability diagrams: score by confidence."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics.calibration import BINS, Calibration
from moebius.lab.statistics.wilson import wilson


class Reliability(Calibration):
    """How often predictions of each confidence are right: the bins of `Calibration`.

    score(b) = mean score of the rows with a confidence in [at, at + 1/15)

    Range: 0 … 1.
    Null: the bin's mean confidence, which a calibrated model has as its score.

    The frame has a line for each bin with rows, of the mixture, of each expert (on all rows and on its own) and of the
    gate: of, on, expert (−1 where it is none), at (the bin's lower end), rows, null, score, low and high (95 %).

    Example:
        >>> import torch
        >>> from moebius.lab.diagnostics._rows import RoutedRows
        >>> confidence, scores = torch.tensor([0.55, 0.55, 0.95]), torch.tensor([1.0, 0.0, 1.0])
        >>> frame = Reliability.of(RoutedRows(torch.ones(3, 1), confidence=confidence, scores=scores))
        >>> frame[["at", "rows", "null", "score"]].round(2).values.tolist()
        [[0.53, 2.0, 0.55, 0.5], [0.93, 1.0, 0.95, 1.0]]

    Reference: Niculescu-Mizil, Caruana 2005, Predicting Good Probabilities with Supervised Learning, ICML.
    """

    def frame(self) -> pd.DataFrame:
        """A line for each bin with rows."""
        lines = []
        for of, on, expert, sums_BN in self.bins():
            for place in np.flatnonzero(sums_BN[:, 0]):
                rows, confidence, right, _ = sums_BN[place]
                score, low, high = (float(value) for value in wilson(rows, right))
                line = {"of": of, "on": on, "expert": expert, "at": place / BINS, "rows": int(rows)}
                lines.append({**line, "null": confidence / rows, "score": score, "low": low, "high": high})
        return pd.DataFrame(lines)
