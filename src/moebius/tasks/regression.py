"""Quantities for each row."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.tasks._targets import align, check_shape, quantities
from moebius.tasks._task import Task

LOSSES = ("mse", "mae", "huber", "quantile")
_SCORES = {"mse": "r2", "huber": "r2", "mae": "d2_absolute", "quantile": "d2_pinball"}


class Regression(Task):
    """Each row has one quantity or several; the loss is a distance of the outputs from them, a mean over several.

    With e = target − output: mse e² · mae |e| · huber ½e² up to |e| = δ, then δ (|e| − ½δ) · quantile
    max(q e, (q − 1) e).

    The score of a row is 1 − d / d̄: its squared error (absolute for mae, pinball for quantile) over the mean one of the
    best constant for the training rows (their mean, median, quantile). Its mean over rows is R² (D² of the absolute and
    of the pinball error) with the training rows' spread as the unit; 1 is perfect, 0 as good as the constant.

    Arguments:
        loss: one of `LOSSES`.
        delta: δ, above 0.
        quantile: q, between 0 and 1.

    Shapes: output (T,), (T, 1) or (T, D); target (T,) or (T, D).

    Example:
        >>> task = Regression().for_data(torch.tensor([0.0, 2.0]))
        >>> task.row_losses(torch.tensor([[0.5], [2.0]]), torch.tensor([0.0, 2.0]))
        tensor([0.2500, 0.0000])
        >>> task.row_scores(torch.tensor([[0.5], [2.0]]), torch.tensor([0.0, 2.0]))
        tensor([0.7500, 1.0000])

    Reference: Huber 1964, Robust Estimation of a Location Parameter; Koenker, Bassett 1978, Regression Quantiles.
    """

    target_type: ClassVar = "numbers"

    def __init__(self, loss: str = "mse", delta: float = 1.0, quantile: float = 0.5):
        if loss not in LOSSES:
            raise ArgumentError("loss", f"needs one of {', '.join(LOSSES)}", loss, did_you_mean(loss, LOSSES))
        if not delta > 0:
            raise ArgumentError("delta", "needs a number above 0", delta, "delta: 1.0")
        if not 0 < quantile < 1:
            raise ArgumentError("quantile", "needs a number between 0 and 1", quantile, "quantile: 0.9")
        self.loss, self.delta, self.quantile = loss, delta, quantile
        self.loss_name, self.score_name = loss, _SCORES[loss]  # type: ignore[misc]
        self._unit: Tensor | None = None

    def for_data(self, target: Any) -> "Regression":
        """The task whose scores have the spread of these targets as their unit."""
        values, task = at_least_float32(quantities("data", target)), copy.copy(self)
        if not len(values):
            return task
        if self._distance == "mse":
            constant = values.mean(0)
        else:
            constant = values.quantile(self.quantile if self.loss == "quantile" else 0.5, dim=0)
        unit = self._distances(constant.expand_as(values), values).mean(0)
        task._unit = torch.where(unit > 0, unit, 1)
        return task

    def check(self, output: Any, target: Any) -> None:
        """Targets are finite numbers, of which the model gives one each."""
        check_shape(output, quantities("data", target))

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Outputs and targets (rows, 2)."""
        return torch.randn(rows, 2, generator=generator), torch.randn(rows, 2, generator=generator)

    def row_losses(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """The distance of each row's outputs from its quantities."""
        output, target = self._pair(output, target)
        if self.loss == "huber":
            return _row_means(F.huber_loss(output, target, reduction="none", delta=self.delta))
        return _row_means(self._distances(output, target))

    def row_scores(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """1 − d / d̄ of each row."""
        output, target = self._pair(output, target)
        distances = self._distances(output, target)
        return 1 - _row_means(distances if self._unit is None else distances / self._unit.to(distances))

    def row_metrics(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """`squared_error` and `absolute_error`."""
        output, target = self._pair(output, target)
        errors = _row_means((target - output).square()), _row_means((target - output).abs())
        return dict(zip(("squared_error", "absolute_error"), errors, strict=True))

    def predict(self, output: Float[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """`predictions`: the outputs, (T,) where a row has one."""
        return {"predictions": output.squeeze(-1) if output.ndim == 2 and output.shape[1] == 1 else output}

    @property
    def _distance(self) -> Literal["mse", "mae", "quantile"]:
        return "mse" if self.loss == "huber" else self.loss  # type: ignore[return-value]

    def _distances(self, output: Tensor, target: Tensor) -> Tensor:
        error = target - output
        if self._distance == "mse":
            return error.square()
        if self._distance == "mae":
            return error.abs()
        return torch.maximum(self.quantile * error, (self.quantile - 1) * error)

    @staticmethod
    def _pair(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        output = at_least_float32(align(output, target))
        return output, target.to(output.dtype)


def _row_means(values: Float[Tensor, "T ..."]) -> Float[Tensor, " T"]:
    return values if values.ndim == 1 else values.flatten(1).mean(1)
