"""A further network for a mixture that exists: it takes the rows that a gate of two finds better with it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Router
from moebius.experts.adapter import Adapter
from moebius.gates.constant import Constant
from moebius.kit.errors import ArgumentError
from moebius.lab.compose.judge import evaluate_model
from moebius.lab.compose.networks import as_network
from moebius.lab.compose.outputs import compute_outputs
from moebius.lab.compose.result import Result, measure_costs
from moebius.lab.ways._gates import trained_gate
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Obstacle
from moebius.layers.mixture import Mixture
from moebius.routers.argmax import Argmax

if TYPE_CHECKING:
    from moebius.lab.compose.composition import Composition

# The way's name of a composition with further networks.
EXTENDED = "extended"


def extend(composition: "Composition", model: Any, name: str | None = None) -> tuple[Result, Pool]:
    """What the recommended model becomes with a further network, and the pool with it; see `Composition.add`.

    Arguments:
        composition: stays as it is.
        model: as for `mb.compose`.
        name: of the network.

    Raises:
        ArgumentError: the network does not fit the others, or its name is taken.
    """
    pool, plan, base = composition.pool, composition.plan, composition.result()
    assert base.model is not None
    network = as_network(model, name or "model", pool.knows.shape[1] if pool.classifies else None)
    name = name or f"{type(network.network).__name__}-{pool.count + 1}"
    if name in pool.names:
        raise ArgumentError("name", "is that of a network of the composition", name, f"name={name + '-2'!r}")
    network.to(pool.outputs.device)
    wide = widened(pool, name, network)
    fitted = wide.take(plan.folds[0][0].to(wide.outputs.device)) if len(plan.folds) == 1 else wide
    # One of both answers a row, so that logits need not be of one scale.
    old = Adapter(base.model, frozen=True)
    pair = fitted.with_outputs([old, network])
    trained = trained_gate(pair)
    gate, router, text = Constant(2), Argmax(), ""
    if not isinstance(trained, Obstacle):
        gate, text = trained
    extended = two_networks(old, network, gate.to(pool.outputs.device), router)
    judged = plan.judged
    evaluation = evaluate_model(extended, wide, judged)
    sentence = f"{base.way} and {name}, for each row one of them, chosen by {text or 'nothing: it is never chosen'}"
    scores, losses = evaluation.scores.double().numpy(), evaluation.losses.double().numpy()
    costs = measure_costs(extended, pool.rows)
    return Result(EXTENDED, False, "", sentence, extended, scores, losses, *costs), wide


def two_networks(old: Adapter, new: Adapter, gate: Any, router: Router) -> Mixture:
    """The mixture of an old model and a new one.

    Both run on all rows, so that a row's numbers do not depend on how many others choose the new one: a product of
    fewer rows has other last digits. `model.execution` may be another one where that does not matter.
    """
    return Mixture(gate, [old, new], router, WeightedSum(), execution="dense").eval()


def widened(pool: Pool, name: str, network: Adapter) -> Pool:
    """The pool with one more network, of which nothing is shared."""
    outputs = compute_outputs({name: network}, pool.task, pool.rows, pool.seed)
    if outputs.values.shape[2:] != pool.outputs.shape[2:]:
        rule = f"must give outputs of the shape {tuple(pool.outputs.shape[2:])}, as the other networks do"
        fix = "mb.experts.Adapter(network, classes=[…], total=…)    # for a network that knows some classes"
        raise ArgumentError(name, rule, tuple(outputs.values.shape[2:]), fix)
    return replace(
        pool,
        names=(*pool.names, name),
        experts=(*pool.experts, network),
        outputs=torch.cat([pool.outputs, outputs.values], 1),
        knows=torch.cat([pool.knows, outputs.knows]),
        shared={},
    )
