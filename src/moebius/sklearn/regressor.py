"""A mixture of experts as a regressor of scikit-learn."""

from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data
from torch import Tensor

from moebius.sklearn._estimator import MoEEstimator
from moebius.tasks.regression import Regression


class MoERegressor(RegressorMixin, MoEEstimator):
    """A mixture of experts that predicts one quantity of rows of numbers, or several.

    The prediction is the sum of the experts' predictions, weighted by the gate. Rows and targets are standardised by
    the (weighted) training rows. The loss is the squared error.

    Arguments:
        experts, count, gate, router, hidden, losses: as in `MoEClassifier`; modules give (T, targets), of standardised
            targets.
        epochs, batch_size, lr, patience, validation, random_state, device: as in `MoEClassifier`.

    Attributes:
        model_: the trained mixture, in evaluation mode, for rows and targets that are standardised.
        trained_: the outcome of training.
        mean_, scale_, target_mean_, target_scale_: of the columns and the targets.

    Example:
        >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
        >>> regressor = MoERegressor("linear", count=2, epochs=200, random_state=0)
        >>> regressor.fit(X, np.abs(X[:, 0])).score(X, np.abs(X[:, 0])) > 0.95
        True

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts; the interface is scikit-learn's.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MoERegressor":
        """Train on rows (T, D) and their quantities, (T,) or (T, targets); a row's loss counts by its weight.

        Raises:
            ValueError: scikit-learn's, for rows or quantities that it refuses, NaN among them.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        X, y, weight = self._weighted_rows(X, np.asarray(y, np.float64), sample_weight)
        self.target_shape_ = y.shape[1:]
        targets = y.reshape(len(y), -1)
        self.target_mean_ = np.average(targets, axis=0, weights=weight)
        spread = np.sqrt(np.average((targets - self.target_mean_) ** 2, axis=0, weights=weight))
        self.target_scale_ = np.where(spread > 0, spread, 1.0)
        scaled = torch.from_numpy((targets - self.target_mean_) / self.target_scale_)
        self._train(X, scaled, targets.shape[1], Regression(), weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The quantities of each row, in their own units."""
        outputs = self._outputs(X).numpy() * self.target_scale_ + self.target_mean_
        return outputs.reshape(len(outputs), *self.target_shape_)

    def _labels_of(self, target: Tensor) -> np.ndarray:
        values = target.numpy().astype(np.float64) * self.target_scale_ + self.target_mean_
        return values.reshape(len(values), *self.target_shape_)

    def _reader(self) -> Any:
        mean, scale = self.target_mean_, self.target_scale_

        def read(estimator: Any, rows: np.ndarray) -> np.ndarray:
            return (estimator.predict(rows).reshape(len(rows), -1) - mean) / scale

        return read
