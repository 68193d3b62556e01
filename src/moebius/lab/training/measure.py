"""The figure of the held-out rows that decides, and whether more or less of it is better."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.training.metrics import Metric
from moebius.lab.training.settings import Watch

# Words in names of figures of which less is better, and of which more is.
_LESS = {"loss", "error", "entropy", "nll", "mse", "mae", "rmse", "perplexity", "huber", "brier", "ece", "deviance"}
_MORE = {"score", "accuracy", "r2", "d2", "f1", "auc", "auroc", "precision", "recall", "match", "likelihood", "iou"}


def resolve_watch(watch: Watch, score_name: str, names: Iterable[str], metrics: Mapping[str, Metric]) -> Watch:
    """The rules with the name that the measure has in an epoch's figures, and with a mode.

    A mode that is not said is that of the task's score and of "loss", that of a metric with an attribute
    `higher_is_better`, as torchmetrics has it, or that of a word in the name: "valid_rmse" is an error.

    Arguments:
        watch: the rules.
        score_name: what "score" stands for.
        names: all figures of held-out rows.
        metrics: those of the user among them.

    Raises:
        ArgumentError: no figure has this name, or nothing tells the mode.

    Example:
        >>> resolve_watch(Watch(measure="rmse"), "r2", ["r2", "loss", "rmse"], {}).mode
        'min'
    """
    name = score_name if watch.measure == "score" else watch.measure
    names = [*names]
    if name not in names:
        rule = f"needs a figure of the held-out rows, one of {', '.join(names)}"
        fix = f'watch={{"measure": "{score_name}"}}    # {did_you_mean(name, names)}'
        raise ArgumentError("watch.measure", rule, name, fix)
    mode = watch.mode or ("max" if name == score_name else _find_mode(name, metrics.get(name)))
    if mode is None:
        fix = f'watch={{"measure": "{name}", "mode": "max"}}    # or "min"'
        raise ArgumentError(
            "watch.mode", f"needs max or min, for nothing tells whether more {name} is better", None, fix
        )
    return watch.model_copy(update={"measure": name, "mode": mode})


def read_measure(figures: Mapping[str, Any], name: str) -> float:
    """The figure of this name among those of a split in an epoch's entry.

    Example:
        >>> read_measure({"accuracy": 0.5, "loss": 1.0, "metrics": {"f1": 0.25}}, "f1")
        0.25
    """
    return figures[name] if name in figures else figures["metrics"][name]


def check_metric_names(metrics: Mapping[str, Metric], names: Iterable[str]) -> None:
    """Whether each metric of the user can be told from the figures that the task reports by itself.

    Raises:
        ArgumentError: one has the name of such a figure.
    """
    names = [*names]
    for name in metrics:
        if name in names:
            rule = f"has the name of a figure that is reported anyway, as {', '.join(names)} are"
            raise ArgumentError(f"metrics.{name}", rule, name, f'metrics={{"my_{name}": metric}}')


def _find_mode(name: str, metric: Metric | None) -> Literal["max", "min"] | None:
    higher = getattr(metric, "higher_is_better", None)
    if higher is not None:
        return "max" if higher else "min"
    words = {*re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())}
    less, more = bool(words & _LESS), bool(words & _MORE)
    return None if less == more else "min" if less else "max"
