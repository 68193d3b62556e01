"""A fitted estimator of scikit-learn as a network."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError

# Of a probability: an estimator that gives 0 says that it has not seen the case.
LEAST = 1e-6


class EstimatorNetwork(nn.Module):
    """A fitted estimator with `predict_proba` or `predict`, as a module; no gradient reaches it.

    It gives log-probabilities (T, C) of a classifier, whose classes have to be numbers 0 … C − 1, logits (T, L) of one
    of several labels, and quantities (T, D) of a regressor. Nothing of an estimator is a tensor, and moebius pickles
    nothing: `mb.save` keeps the place of the network, and `mb.load` receives it again.

    Arguments:
        estimator: fitted.
        total: C; None for the classes that it has seen.

    Shapes: x (T, …), flattened → (T, C), (T, L) or (T, D).

    Raises:
        ArgumentError: it is not fitted, has neither method, or classes that are no numbers from 0.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> network = EstimatorNetwork(LogisticRegression().fit(x, [0, 0, 1, 1]))
        >>> network(torch.tensor([[0.0], [3.0]])).argmax(1)
        tensor([0, 1])

    Reference: ours.
    """

    def __init__(self, estimator: Any, total: int | None = None):
        super().__init__()
        if not hasattr(estimator, "predict"):
            rule = "needs an estimator with predict_proba or predict"
            raise ArgumentError("estimator", rule, type(estimator).__name__, "LogisticRegression().fit(x, y)")
        if not _is_fitted(estimator):
            fix = "estimator.fit(x, y), with rows that are not those of mb.compose"
            raise ArgumentError("estimator", "needs to be fitted", type(estimator).__name__, fix)
        self.estimator, self.total = estimator, total
        classes = getattr(estimator, "classes_", None)
        self.is_classifier = classes is not None and not isinstance(classes, list)
        self.classes = None
        if self.is_classifier:
            values = np.asarray(classes)
            if values.dtype.kind not in "iu" or (len(values) and values.min() < 0):
                rule = "needs classes that are numbers from 0, as the targets of a network are"
                raise ArgumentError("estimator", rule, values.tolist(), "estimator.fit(x, y.cat.codes)")
            self.classes = torch.from_numpy(values.astype(np.int64))

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T _"]:
        """Its outputs for each row."""
        rows = x.flatten(1).numpy(force=True)
        values = self._values(rows)
        output = torch.as_tensor(np.asarray(values), dtype=torch.float32, device=x.device)
        if not self.is_classifier or self.classes is None:
            return output.unsqueeze(1) if output.ndim == 1 else output
        total = self.total or int(self.classes.max()) + 1
        logarithms = output.clamp(min=LEAST).log()
        return output.new_full((len(x), total), -torch.inf).index_copy(1, self.classes.to(x.device), logarithms)

    def _values(self, rows: np.ndarray) -> Any:
        probabilities = getattr(self.estimator, "predict_proba", None)
        if self.is_classifier:
            if probabilities is not None:
                return probabilities(rows)
            assert self.classes is not None
            return (self.estimator.predict(rows)[:, None] == self.classes.numpy()).astype(np.float32)
        if probabilities is None:
            return self.estimator.predict(rows)
        tables = probabilities(rows)  # of several labels, one each
        share = np.stack([table[:, 1] for table in tables], 1) if isinstance(tables, list) else tables
        share = np.clip(share, LEAST, 1 - LEAST)
        return np.log(share / (1 - share))


def _is_fitted(estimator: Any) -> bool:
    """Whether an estimator was fitted; of one that is not scikit-learn's, whether it has anything to predict with."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except TypeError:
        return True
    return True
