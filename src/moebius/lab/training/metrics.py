"""Figures of all rows of a split together, such as objects of torchmetrics."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError

# Outputs and targets of all rows → a number.
Metric = Callable[[Any, Any], Any]


def compute_metric(name: str, metric: Metric, outputs: Sequence[Any], target: Any) -> float:
    """The metric of all rows; one that keeps a state, as those of torchmetrics do, is reset.

    Arguments:
        name: of the metric, for the error.
        metric: called once.
        outputs: of a model for the rows, piece by piece: tensors, or mappings of them.
        target: of all rows.

    Raises:
        ArgumentError: it gives more than one number.

    Example:
        >>> compute_metric("bias", lambda y, t: (y - t).mean(), [torch.ones(2), torch.ones(1)], torch.zeros(3))
        1.0
    """
    if isinstance(outputs[0], Tensor):
        joined: Any = torch.cat([*outputs])
    else:
        joined = {key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}
    value = metric(joined, target)
    if hasattr(metric, "reset"):
        metric.reset()  # type: ignore[attr-defined]
    if isinstance(value, Tensor) and value.numel() != 1:
        fix = "lambda output, target: metric(output, target).mean()"
        raise ArgumentError(f"metrics.{name}", "must give one number for all rows", tuple(value.shape), fix)
    return float(value)
