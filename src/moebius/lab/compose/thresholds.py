"""Thresholds of a model's confidence: calibrated on rows, with what they promise and a check whether it holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.experts.cascade import confidence
from moebius.kit.errors import ArgumentError
from moebius.lab.compose.rows import read_split
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.statistics.clopper_pearson import clopper_pearson
from moebius.lab.training.call_model import call_model
from moebius.lab.training.evaluation import ROWS_AT_ONCE
from moebius.storage.save import save

# Of the tests whether a promise holds on other rows.
LEVEL = 0.01


@dataclass(frozen=True)
class Check:
    """Whether a threshold keeps its promise on other rows.

    Arguments:
        holds: false where something shows that it does not.
        text: what was tested, and what came out.
        figures: name → value.
    """

    holds: bool
    text: str
    figures: Mapping[str, float]

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class Threshold:
    """A model with a threshold of its confidence.

    Arguments:
        model: decides by the threshold; it is saved and exported like any module.
        judge: the module whose confidence decides.
        promise: "share", of rows at most that are below, or "accuracy", of those that are not.
        value: that is promised.
        level: the chance at least that the promise is kept; of a share one half, since rows vary about it.
        threshold: of the confidence.
        calibration: the confidence of each row of the calibration.
        text: what is promised.
    """

    model: nn.Module
    judge: nn.Module
    promise: str
    value: float
    level: float
    threshold: float
    calibration: Float[np.ndarray, " T"]
    text: str

    def holds(self, data: Any, labelled: bool = True) -> Check:
        """Whether the promise holds on other rows.

        Two tests at 1 %: whether the confidences are distributed as in the calibration (Kolmogorov and Smirnov), which
        needs no targets and whose promise ends where they are not; and whether the promised share or accuracy is kept.

        Arguments:
            data: inputs and targets, in any form that `mb.fit` takes; or inputs alone, where `labelled` is false.
            labelled: whether there are targets.

        Raises:
            ArgumentError: rows in another form.
        """
        if not labelled:
            data = (data, torch.zeros(len(data), dtype=torch.long))
        split = read_split(data)
        values, right = judged_confidence(self.judge, split)
        return self._check(values, right if labelled else None)

    def _check(self, values: np.ndarray, right: np.ndarray | None) -> Check:
        from scipy.stats import ks_2samp

        share = float((values < self.threshold).mean())
        p = float(ks_2samp(values, self.calibration)[1])  # type: ignore[index]
        figures = {"share_below": share, "p_distribution": p}
        reasons = []
        if p < LEVEL:
            reasons.append(f"the confidences are others than in the calibration (p {p:.1e})")
        if self.promise == "share":
            low, _ = clopper_pearson(int((values < self.threshold).sum()), len(values), 1 - 2 * LEVEL)
            if low > self.value:
                reasons.append(f"{share:.1%} of the rows are below the threshold, not {self.value:.0%} at most")
        elif right is not None:
            answered = values >= self.threshold
            figures["accuracy"] = float(right[answered].mean()) if answered.any() else math.nan
            if answered.any():
                _, high = clopper_pearson(int(right[answered].sum()), int(answered.sum()), 1 - 2 * LEVEL)
                if high < self.value:
                    reasons.append(f"answered rows have the accuracy {figures['accuracy']:.3f}, not {self.value:g}")
        kept = f"{share:.1%} of {len(values):,} rows are below the threshold"
        kept += f", the others have the accuracy {figures['accuracy']:.3f}" if "accuracy" in figures else ""
        if reasons:
            return Check(False, f"It does not hold on these rows: {'; '.join(reasons)}.", figures)
        return Check(True, f"Nothing shows that it does not hold on these rows: {kept}.", figures)

    def save(self, folder: str | Path) -> None:
        """Write the model as `mb.save` does; the header says what is promised.

        Arguments:
            folder: of its own.
        """
        save(self.model, folder, data={"threshold": self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """What is promised, as plain values."""
        facts = {"promise": self.promise, "value": self.value, "level": self.level, "threshold": self.threshold}
        return {**facts, "rows": len(self.calibration), "text": self.text}

    def __repr__(self) -> str:
        return f"Threshold({self.text})"


def judged_confidence(model: nn.Module, split: Split) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """The confidence of each row, and whether its class is right.

    Arguments:
        model: of classes.
        split: the rows.
    """
    values: list[Tensor] = []
    right: list[Tensor] = []
    device = next((parameter.device for parameter in model.parameters()), split.device)
    with torch.inference_mode():
        for batch in ordered_batches(split, ROWS_AT_ONCE, device=device):
            output = call_model(model, batch.x, batch.domains)
            values.append(confidence(output))
            right.append(output.argmax(-1) == batch.labels)
    return torch.cat(values).double().cpu().numpy(), torch.cat(right).double().cpu().numpy()


def share_threshold(values: Float[np.ndarray, " T"], share: float) -> float:
    """The threshold below which a share of the rows is, and no larger one.

    Arguments:
        values: the confidence of each row.
        share: from 0 to below 1.

    Example:
        >>> share_threshold(np.array([0.1, 0.2, 0.3, 0.4]), 0.5)
        0.3
    """
    ordered = np.sort(values)
    count = math.floor(share * len(ordered))
    return float(ordered[count])


def accuracy_threshold(
    values: Float[np.ndarray, " T"], right: Float[np.ndarray, " T"], accuracy: float, level: float, models: int = 1
) -> float | None:
    """The lowest threshold from which on, going down from the most certain rows, the accuracy is shown; None for none.

    Thresholds are tested in a fixed order, from the most certain quarter of the rows to all, in steps of a hundredth,
    until one is not shown by the exact binomial bound: so the chance that the accuracy is missed is at most 1 − level,
    whatever the distribution of the rows. The first part has twice as many rows at least as would show the accuracy if
    all were right.

    Arguments:
        values: the confidence of each row.
        right: whether its class is right.
        accuracy: of the rows that are not below.
        level: in (0, 1).
        models: among which the rows have chosen one; the chance is divided by it.

    Example:
        >>> accuracy_threshold(np.linspace(0, 1, 200), np.repeat([0.0, 1.0], 100), 0.9, 0.9)
        0.4723618090452261

    Reference: Angelopoulos, Bates, Candès, Jordan, Lei 2021, Learn then Test, arXiv:2110.01052, section 3, fixed
    sequence testing; Geifman, El-Yaniv 2017, Selective Classification for Deep Neural Networks.
    """
    ordered = np.argsort(-values, kind="stable")
    chance, kept = (1 - level) / models, None
    fewest = 2 * math.ceil(math.log(chance) / math.log(accuracy))
    for hundredth in range(25, 101):
        count = math.ceil(hundredth * len(values) / 100)
        if count < fewest:
            continue
        threshold = float(values[ordered[count - 1]])
        answered = values >= threshold
        low, _ = clopper_pearson(int(right[answered].sum()), int(answered.sum()), 1 - 2 * chance)
        if low < accuracy:
            return kept
        kept = threshold
    return kept


def check_share(name: str, value: float) -> float:
    """A number above 0 and below 1.

    Raises:
        ArgumentError: it is another.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
        raise ArgumentError(name, "needs a number between 0 and 1", value, f"{name}=0.3")
    return float(value)
