"""The confusion matrix."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from moebius.lab.diagnostics._arrays import known


def confusion(labels: Int[np.ndarray, " T"], predictions: Int[np.ndarray, " T"], names: Sequence[str]) -> pd.DataFrame:
    """Which class is taken for which.

    rows(c, d) = |{x: label c, prediction d}|;  share(c, d) = rows(c, d) / Σ_d rows(c, d), so that share(c, c) is recall

    Arguments:
        labels: true classes, as indices into `names`.
        predictions: predicted classes.
        names: what the classes are called.

    Returns:
        Columns label, prediction, rows, share, for the pairs that occur, ordered by class.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])["share"].tolist()
        [0.5, 0.5, 1.0]

    Reference: ours.
    """
    classes = len(names)
    known(labels, names, "labels")
    known(predictions, names, "predictions")
    rows_CC = np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    label, prediction = np.nonzero(rows_CC)
    rows = rows_CC[label, prediction]
    titles = np.asarray(names, dtype=object)
    return pd.DataFrame(
        {
            "label": titles[label],
            "prediction": titles[prediction],
            "rows": rows,
            "share": rows / rows_CC.sum(1)[label],
        }
    )
