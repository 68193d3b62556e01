"""The confusion matrix over the rows that each expert wins. The section of `confusion` draws it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import row_wins
from moebius.lab.diagnostics.confusion import confusion
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows


def expert_confusion(
    weights: Float[np.ndarray, "T E"],
    labels: Int[np.ndarray, " T"],
    predictions: Int[np.ndarray, " T"],
    names: Sequence[str],
) -> pd.DataFrame:
    """The confusion matrix over the rows whose largest gate weight is e, for every expert e.

    The matrices of all experts add up to the overall one. A tie divides the row: of n experts with the same largest
    weight each has 1/n of it.

    Arguments:
        weights: gate weights.
        labels: true classes, as indices into `names`.
        predictions: classes predicted by the whole mixture.
        names: names of the classes.

    Returns:
        Columns expert, label, prediction, rows, share (of the expert's rows with that label), for the combinations that
        occur.

    Example:
        >>> weights = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> expert_confusion(weights, np.array([0, 0]), np.array([0, 1]), ["cat", "dog"])[["expert", "prediction"]]
           expert prediction
        0       0        cat
        1       1        dog

    Reference: ours; the expert confusion of the studies.
    """
    frames = []
    for expert, wins_T in enumerate(row_wins(weights).T):
        won = wins_T > 0
        frame = confusion(labels[won], predictions[won], names, wins_T[won])
        frame.insert(0, "expert", expert)
        frames.append(frame)
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def table(rows: GateRows) -> Frame | None:
    """The matrices of the test split; None for the training split, which no section draws, and without classes."""
    if rows.split != "test" or not rows.class_names:
        return None
    return expert_confusion(rows.weights, rows.labels, rows.predictions, rows.class_names)
