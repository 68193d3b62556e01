"""A mixture of experts as a classifier of scikit-learn."""

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from moebius.sklearn._estimator import MoEEstimator
from moebius.tasks.classification import Classification

# Probabilities of an expert of scikit-learn are at least this: a tree says 0 of a class that it has not seen in a leaf.
_LEAST = 1e-4


class MoEClassifier(ClassifierMixin, MoEEstimator):
    """A mixture of experts that classifies rows of numbers; its output mixes the experts' distributions.

    Rows are standardised by the (weighted) training rows. All of it is that of `mb.fit`; the mixture is `model_`, for
    `mb.record` and everything else of the library, and the outcome of its training `trained_`.

    Arguments:
        experts: a kind of room `experts` for all (`count` of them), a list of kinds or mappings (`{"kind": "mlp",
            "hidden": [64]}`), of modules x (T, D) → logits (T, C), or of estimators of scikit-learn. A fitted one is
            taken as it is, another is cloned and fitted on all rows; where all are estimators, the gate alone learns.
        count: number of experts of one kind.
        gate: a kind of room `gates`, or a mapping of it with keywords.
        router: a kind of room `routers`, or a mapping: `{"kind": "top_k", "k": 1}`.
        hidden: widths of hidden layers, for kinds `mlp`.
        losses: gate losses, as in `mb.fit`.
        epochs, batch_size, lr, patience: as in `mb.fit`.
        validation: share of the rows that is held out, of which the best epoch is kept; 0 keeps the last.
        random_state: of the initial weights, the order of rows and the rows held out.
        device: where to train: "cpu", "cuda" or "auto".

    Attributes:
        classes_: the classes.
        model_: the trained mixture, in evaluation mode, for rows that are standardised.
        trained_: the outcome of training.
        mean_, scale_: of the columns.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> MoEClassifier(count=2, epochs=20, random_state=0).fit(X, y).score(X, y) > 0.9
        True

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts; the interface is scikit-learn's.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MoEClassifier":
        """Train on rows (T, D) and their classes (T,); a row's loss counts by its weight.

        Raises:
            ValueError: scikit-learn's, for rows or classes that it refuses (NaN among them), or a single class.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        X, y, weight = self._weighted_rows(X, y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("Classifier can't train when only one class is present.")
        self._train(X, torch.from_numpy(labels).long(), len(self.classes_), Classification(), weight)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (T, C), whose rows sum to 1."""
        return self._outputs(X).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def _labels_of(self, target: Tensor) -> np.ndarray:
        return self.classes_[target.numpy()]

    def _reader(self) -> Any:
        classes = self.classes_

        def read(estimator: Any, rows: np.ndarray) -> np.ndarray:
            probabilities = np.full((len(rows), len(classes)), _LEAST)
            columns = np.searchsorted(classes, estimator.classes_)
            probabilities[:, columns] = np.maximum(estimator.predict_proba(rows), _LEAST)
            return np.log(probabilities)

        return read
