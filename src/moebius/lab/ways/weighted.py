"""Weighted: constants for each network, or for each network and class."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from moebius.combine.log_mixture import LogMixture
from moebius.core.routing import Router
from moebius.gates.constant import Constant
from moebius.lab.ways._fitting import choose, columns, drawn, mean_loss, minimise
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.layers.mixture import Mixture
from moebius.routers.per_class import PerClass
from moebius.routers.soft import Soft

# With more constants than this, those of each class are left out.
MOST_CONSTANTS = 2000
Parts = tuple[Constant, Router, Callable[..., Tensor] | None]


@way()
def weighted(pool: Pool) -> Composed | Obstacle:
    """The weighted mean of the networks, with the weights that have the least loss on the rows.

    Weights are at least 0 and sum to 1: one for each network, or one for each network and class, whichever has less
    loss on rows that were not fitted. A network's weight begins at 1/E, and one further row votes for each network.

    Reference: Breiman 1996, Stacked Regressions, section 3, for weights of at least 0.
    """
    forms: dict[str, Callable[[], Parts]] = {"each network": lambda: (Constant(pool.count), Soft(), None)}
    outputs = pool.outputs.shape[2] if pool.outputs.ndim == 3 else 0
    if pool.gives_probabilities and pool.count * outputs <= MOST_CONSTANTS:
        combine = LogMixture(renormalise=True) if pool.classifies else pool.combine()
        gate = functools.partial(Constant, pool.count * outputs)
        forms["each network and class"] = lambda: (gate(), PerClass(outputs, within_class=True), combine)
    few = drawn(pool)
    name = choose(few, forms, _fitted)
    model = _fitted(few, forms[name])
    model.experts = nn.ModuleList(pool.experts)
    return Composed(model.eval(), f"constant weights for {name}{_shares(model, pool)}")


def _fitted(pool: Pool, make: Callable[[], Parts]) -> Mixture:
    gate, router, combine = make()
    model = pool.mixture(gate.to(pool.outputs.device), router, combine, columns(pool.count))

    def loss() -> Tensor:
        scores = gate.bias.view(-1, pool.count)
        return mean_loss(pool, model) - scores.log_softmax(-1).sum() / scores.shape[0] / len(pool)

    with torch.no_grad():
        if not bool(loss().isfinite()):
            return model
    minimise(loss, [gate.bias])
    return model


def _shares(model: Mixture, pool: Pool) -> str:
    if isinstance(model.router, PerClass):
        return ""
    weights = model.gate.bias.detach().softmax(-1).tolist()  # type: ignore[union-attr, operator]
    return ": " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(pool.names, weights, strict=True))
