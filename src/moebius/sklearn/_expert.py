"""An estimator of scikit-learn as an expert of a mixture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

# Estimator, rows in their own units → outputs (T, C) as the mixture's experts give them.
Reader = Callable[[Any, np.ndarray], np.ndarray]


class EstimatorExpert(nn.Module):
    """A fitted estimator; no gradient reaches it, and nothing of it is trained.

    Arguments:
        estimator: fitted.
        mean, scale: of the columns, by which the mixture's rows were scaled.
        reader: gives its outputs.

    Shapes: x (T, D) → (T, C).
    """

    def __init__(self, estimator: Any, mean: np.ndarray, scale: np.ndarray, reader: Reader):
        super().__init__()
        self.estimator, self.mean, self.scale, self.reader = estimator, mean, scale, reader

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T C"]:
        """Its outputs for scaled rows."""
        rows = x.numpy(force=True).astype(np.float64) * self.scale + self.mean
        return torch.as_tensor(self.reader(self.estimator, rows), dtype=x.dtype, device=x.device)


def fitted_copy(estimator: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """The estimator if it is fitted already, else a fitted clone of it."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        copied: Any = clone(estimator)
        return copied.fit(X, y)
    return estimator
