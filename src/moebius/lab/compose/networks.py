"""Trained models of any form, as frozen networks of one form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.compose.estimator import EstimatorNetwork
from moebius.lab.training.outcome import Trained
from moebius.storage.load import load


def as_networks(
    models: Mapping[str, Any] | Sequence[Any], names: Sequence[str] | None = None, classes: int | None = None
) -> dict[str, Adapter]:
    """Name → frozen network, whose outputs are logits or quantities.

    Networks are shared and not copied. They are frozen: from then on their parameters want no gradient.

    Arguments:
        models: modules, adapters, results of `mb.fit`, paths of saved models or of studies' runs, fitted estimators of
            scikit-learn; or a mapping of names to them.
        names: of the models of a sequence; unless given, those of their classes or folders.
        classes: C, for estimators that may not have seen all classes.

    Raises:
        ArgumentError: there is no model, one is of no such form, or names are not one for each, or repeat.
        DataError: a folder holds no model.
    """
    if isinstance(models, str | Path | nn.Module) or not isinstance(models, Mapping | Sequence | nn.ModuleList):
        rule = "needs several trained models: a list, or a mapping of names to them"
        raise ArgumentError("models", rule, type(models).__name__, "mb.compose([network, another], (x, y))")
    if isinstance(models, Mapping):
        names, models = [str(name) for name in models], list(models.values())
    if not len(models):
        raise ArgumentError("models", "needs at least one trained model", [], "mb.compose([network, another], (x, y))")
    chosen = _names(list(models)) if names is None else list(names)
    if len(chosen) != len(models) or len(set(chosen)) < len(chosen):
        rule = f"needs a name for each of {len(models)} models, all different"
        raise ArgumentError("names", rule, chosen, f"names={[f'network-{number}' for number in range(len(models))]}")
    return {name: as_network(model, name, classes) for name, model in zip(chosen, models, strict=True)}


def as_network(model: Any, name: str = "model", classes: int | None = None) -> Adapter:
    """A trained model as a frozen adapter, whose outputs are logits or quantities.

    Arguments:
        model: as for `as_networks`.
        name: of the model, for errors.
        classes: C, for an estimator that may not have seen all classes.

    Raises:
        ArgumentError: it is of no such form.
        DataError: the folder holds no model.
    """
    if isinstance(model, str | Path):
        model = load(model)
    if isinstance(model, Trained):
        model = model.model
    if not isinstance(model, nn.Module):
        if isinstance(model, type) or not (hasattr(model, "predict") or hasattr(model, "predict_proba")):
            rule = "needs a module, the folder of a saved model or run, or a fitted estimator"
            raise ArgumentError(name, rule, type(model).__name__, "mb.compose([network, another], (x, y))")
        model = EstimatorNetwork(model, classes)
    model.eval()
    if isinstance(model, Adapter) and model.activation in ("softmax", "sigmoid"):
        return Adapter(model, activation="log" if model.activation == "softmax" else "none", frozen=True)
    return model.freeze() if isinstance(model, Adapter) else Adapter(model, frozen=True)


def _names(models: Sequence[Any]) -> list[str]:
    """A name for each model: its folder's, or its class's, with a number where it repeats."""
    names = [_name(model) for model in models]
    return [
        name if names.count(name) == 1 else f"{name}-{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def _name(model: Any) -> str:
    if isinstance(model, str | Path):
        folder = Path(model).absolute()
        is_run = folder.name.startswith("seed-")
        return f"{folder.parent.name}-{folder.name}" if is_run else folder.name
    if isinstance(model, Trained):
        model = model.model
    while isinstance(model, Adapter):
        model = model.network
    return type(model).__name__
