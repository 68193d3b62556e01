"""What the classifier and the regressor share: the mixture, its training, and files without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from moebius.combine.log_mixture import LogMixture
from moebius.kit.errors import ArgumentError
from moebius.lab.model.build import build_model
from moebius.lab.training.fit import fit
from moebius.layers.mixture import Mixture
from moebius.sklearn._expert import EstimatorExpert, fitted_copy
from moebius.storage.header import read_header
from moebius.storage.load import load
from moebius.storage.save import save
from moebius.tasks._task import Task
from moebius.tasks._weighted import Weighted, weights_of

_ROWS_AT_ONCE = 4096
# What files keep beside the model, by attribute.
_ARRAYS = ("mean_", "scale_", "target_mean_", "target_scale_", "classes_", "feature_names_in_")


class MoEEstimator(BaseEstimator):
    """Base of the estimators; see `MoEClassifier` and `MoERegressor`."""

    n_features_in_: int
    target_shape_: tuple[int, ...]

    def __init__(
        self,
        experts: Any = "mlp",
        count: Any = 4,
        gate: Any = "linear",
        router: Any = "soft",
        hidden: Any = (32,),
        losses: Any = (),
        epochs: Any = 100,
        batch_size: Any = 64,
        lr: Any = 1e-2,
        validation: Any = 0.0,
        patience: Any = None,
        random_state: Any = None,
        device: Any = "cpu",
    ):
        self.experts = experts
        self.count = count
        self.gate = gate
        self.router = router
        self.hidden = hidden
        self.losses = losses
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation = validation
        self.patience = patience
        self.random_state = random_state
        self.device = device

    def _weighted_rows(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> tuple[Any, Any, Any]:
        """The rows whose weight is not 0, their targets and their weights."""
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.sum() > 0:
            raise ValueError("sample_weight: needs a weight above 0")
        return X[weight > 0], y[weight > 0], weight[weight > 0]

    def _train(self, X: np.ndarray, target: Tensor, outputs: int, task: Task, weight: np.ndarray) -> None:
        """Build the mixture and train it on checked rows."""
        # The scale is that of the weighted rows, so that a row of weight 2 counts as two rows.
        self.mean_ = np.average(X, axis=0, weights=weight)
        spread = np.sqrt(np.average((X - self.mean_) ** 2, axis=0, weights=weight))
        self.scale_ = np.where(spread > 0, spread, 1.0)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.model_ = self._build(X, target, outputs).double()
        frozen = all(isinstance(expert, EstimatorExpert) for expert in self.model_.experts)
        self.trained_ = fit(
            self.model_,
            (self._scaled(X), {"target": target, "weight": weights_of(weight)}),
            trains="gate" if frozen else "both",
            validation=self.validation,
            task=Weighted(task),
            seed=seed,
            device=self.device,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            losses=self.losses,
            patience=self.patience,
            progress=False,
        )
        self.model_.cpu()

    def _build(self, X: np.ndarray, target: Tensor, outputs: int) -> Mixture:
        facts = {"features": X.shape[1], "channels": 1, "size": 1, "classes": outputs, "domains": 1}
        classifies = is_classifier(self)
        experts = [self.experts] * self.count if isinstance(self.experts, str) else self.experts
        experts = [experts] if isinstance(experts, Mapping) else list(experts)
        if not experts:
            raise ArgumentError("experts", "needs at least one expert", experts, 'experts="mlp"')
        combine = {"kind": "log_mixture"} if classifies else {"kind": "weighted_sum"}
        names = {"gate": self._spec(self.gate), "router": self._spec(self.router), "combine": combine}
        if all(isinstance(expert, str | Mapping) for expert in experts):
            spec = {**names, "experts": [self._spec(expert) for expert in experts]}
            model = build_model(spec, facts)
            assert isinstance(model, Mixture)
            return model
        # A gate for as many experts, from a mixture of linear ones.
        frame = build_model({**names, "experts": {"kind": "linear", "count": len(experts)}}, facts)
        assert isinstance(frame, Mixture)
        modules = [self._module(expert, X, target) for expert in experts]
        return Mixture(frame.gate, modules, frame.router, LogMixture() if classifies else None)

    def _spec(self, part: Any) -> dict[str, Any]:
        spec = {"kind": part} if isinstance(part, str) else dict(part)
        takes_hidden = spec["kind"] in ("mlp", "table")
        return {**({"hidden": list(self.hidden)} if takes_hidden else {}), **spec}

    def _module(self, expert: Any, X: np.ndarray, target: Tensor) -> nn.Module:
        if isinstance(expert, nn.Module):
            return expert
        if not hasattr(expert, "fit"):
            rule = "needs kinds, modules or estimators of scikit-learn"
            raise ArgumentError("experts", rule, type(expert).__name__, 'experts=["mlp", RandomForestClassifier()]')
        estimator = fitted_copy(expert, X, self._labels_of(target))
        return EstimatorExpert(estimator, self.mean_, self.scale_, self._reader())

    def _scaled(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X - self.mean_) / self.scale_)

    @torch.inference_mode()
    def _outputs(self, X: Any) -> Tensor:
        """The model's outputs for checked rows."""
        check_is_fitted(self, "model_")
        rows = self._scaled(np.asarray(validate_data(self, X, reset=False, dtype=np.float64)))
        return torch.cat([self.model_(piece) for piece in rows.split(_ROWS_AT_ONCE)])

    def _labels_of(self, target: Tensor) -> np.ndarray:
        """Targets as an expert that is an estimator of its own takes them."""
        raise NotImplementedError

    def _reader(self) -> Any:
        """Estimator, rows → its outputs as the mixture's experts give them."""
        raise NotImplementedError

    def save(self, folder: Path | str) -> None:
        """Write model and scales to a folder, without pickle.

        Raises:
            ArgumentError: an expert is an estimator of scikit-learn, which only pickle can keep.
        """
        check_is_fitted(self, "model_")
        if any(isinstance(module, EstimatorExpert) for module in self.model_.modules()):
            rule = "holds experts that are estimators of scikit-learn, which only pickle can keep"
            raise ArgumentError(
                "experts", rule, type(self).__name__, "joblib.dump(estimator, path)    # or other experts"
            )
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS if hasattr(self, name)}
        sizes = {"n_features_in_": self.n_features_in_, "target_shape_": [*getattr(self, "target_shape_", ())]}
        about = {"estimator": type(self).__name__, "arrays": arrays, "sizes": sizes}
        save(self.model_, folder, data=about)

    @classmethod
    def load(cls, folder: Path | str) -> Any:
        """The fitted estimator that `save` wrote.

        Raises:
            ArgumentError: the folder holds another kind of estimator.
        """
        about = read_header(Path(folder))["data"]
        if about.get("estimator") != cls.__name__:
            rule = f"needs a folder that {cls.__name__}.save wrote"
            raise ArgumentError("folder", rule, about.get("estimator"), f"{about.get('estimator')}.load(folder)")
        estimator = cls()
        for name, values in about["arrays"].items():
            setattr(estimator, name, np.array(values, dtype=object if name == "feature_names_in_" else None))
        estimator.n_features_in_ = about["sizes"]["n_features_in_"]
        estimator.target_shape_ = tuple(about["sizes"]["target_shape_"])
        model = load(folder)
        assert isinstance(model, Mixture)
        estimator.model_ = model.eval()
        return estimator
