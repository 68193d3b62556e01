"""The models of the table benchmark: mixtures of this package, an MLP of as many parameters, and forests of trees."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from _table_sets import TableSet
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from torch import nn

import moebius as mb
from moebius.lab.data.split import Split
from moebius.lab.training.fit_parts import fit_parts

# Probabilities (T, C) of classes, or means (T,) in units of the training targets' deviation.
Predictions = np.ndarray
EXPERTS, WIDTH, STEPS, LR = 4, 32, 1500, 3e-3


def _expert(data: TableSet, outputs: int, hidden: list[int]) -> nn.Module:
    return mb.experts.Table(data.features, outputs, data.cardinalities, hidden, numeric="piecewise")


def _gate(data: TableSet) -> nn.Module:
    return mb.gates.Table(data.features, EXPERTS, data.cardinalities, [WIDTH], numeric="piecewise")


def _combine(data: TableSet) -> mb.LogMixture | mb.WeightedSum:
    return mb.LogMixture() if data.classifies else mb.WeightedSum()


def soft(data: TableSet, outputs: int | None = None, **options) -> nn.Module:
    """Four experts of two layers, each of which embeds the row, and a gate that does, too."""
    experts = [_expert(data, outputs or data.outputs, [WIDTH, WIDTH]) for _ in range(EXPERTS)]
    return mb.Mixture(_gate(data), experts, **{"combine": _combine(data), **options})


def top_1(data: TableSet) -> nn.Module:
    """The same, and one expert runs for a row."""
    return soft(data, router=mb.routers.TopK(1))


def density(data: TableSet) -> nn.Module:
    """The same, and experts give a mean and a scale, whose likelihoods are mixed."""
    return soft(data, outputs=2, combine=mb.combine.Components())


def gg_moe(data: TableSet) -> nn.Module:
    """One embedding of the row, a linear gate with relaxed Gumbel weights, and eight small experts (Chernov 2025)."""
    experts = [mb.experts.MLP(64, data.outputs, [WIDTH]) for _ in range(2 * EXPERTS)]
    router, gate = mb.routers.GumbelSoftmax(), mb.gates.Linear(64, 2 * EXPERTS)
    return nn.Sequential(_expert(data, 64, []), mb.Mixture(gate, experts, router))


def mlp(data: TableSet) -> nn.Module:
    """One expert of as many parameters as `soft`, of the same embeddings and layers."""
    aim, width = _parameters(soft(data)), WIDTH
    while _parameters(_expert(data, data.outputs, [width, width])) < aim:
        width += 4
    return mb.Mixture(mb.gates.Uniform(1), [_expert(data, data.outputs, [width, width])])


NETWORKS: Mapping[str, Callable[[TableSet], nn.Module]] = {
    "soft": soft,
    "top_1": top_1,
    "gg_moe": gg_moe,
    "density": density,
    "mlp": mlp,
}
TREES = ("gradient_boosting", "random_forest")
# What knows no features: the classes' shares, or the mean.
CONSTANT = "constant"
OURS, REFERENCES = ("soft", "top_1", "gg_moe", "density"), ("mlp", *TREES)


def fits(name: str, data: TableSet) -> bool:
    """Whether a model can learn a set: densities are of numbers."""
    return not (name == "density" and data.classifies)


def train_network(name: str, data: TableSet, seed: int) -> tuple[Predictions, int]:
    """Predictions for the test rows, and the number of parameters."""
    torch.manual_seed(seed)
    model = NETWORKS[name](data)
    fit_parts(model, Split(data.train.x, data.train.y, torch.zeros(len(data.train.y), dtype=torch.long)))
    size = 64 if len(data.train.y) < 2000 else 256
    steps = math.ceil(len(data.train.y) / size)
    task = "gaussian" if name == "density" else "classification" if data.classifies else "regression"
    mb.fit(
        model,
        (data.train.x, data.train.y),
        validation=(data.validation.x, data.validation.y),
        task=task,
        seed=seed,
        device="cpu",
        batch_size=size,
        lr=LR,
        epochs=min(100, math.ceil(STEPS / steps)),
        # By the loss: the scores of 27 held-out rows tie.
        watch={"measure": "loss", "patience": 15},
    )
    with torch.no_grad():
        output = model(data.test.x)
    if name == "density":
        return mb.tasks.Gaussian().predict(output)["predictions"].numpy(), _parameters(model)
    values = output.softmax(-1) if data.classifies else output.squeeze(1)
    return values.double().numpy(), _parameters(model)


def train_estimator(name: str, data: TableSet, seed: int) -> tuple[Predictions, int]:
    """Predictions by scikit-learn's defaults, trained on training and held-out rows."""
    codes = len(data.cardinalities)
    columns = [*range(data.train.raw.shape[1] - codes, data.train.raw.shape[1])]
    if name == "gradient_boosting":
        make = HistGradientBoostingClassifier if data.classifies else HistGradientBoostingRegressor
        model = make(random_state=seed, categorical_features=columns or None)
    elif name == CONSTANT:
        model = DummyClassifier() if data.classifies else DummyRegressor()
    else:
        make = RandomForestClassifier if data.classifies else RandomForestRegressor
        model = make(random_state=seed, n_jobs=1)
    rows = np.concatenate([data.train.raw, data.validation.raw])
    model.fit(rows, torch.cat([data.train.y, data.validation.y]).numpy())
    if data.classifies:
        return model.predict_proba(data.test.raw), 0
    return model.predict(data.test.raw), 0


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
