"""Add an expert: for the rows that are served worst."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from moebius.gates.uniform import Uniform
from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Split
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.remedies._fitting import best_of, expert_parameters, fit_part
from moebius.lab.remedies._fresh import fresh
from moebius.lab.remedies._gate_fits import soft_form
from moebius.lab.remedies._gate_network import gate_network
from moebius.lab.remedies._routes import record_routes
from moebius.lab.training.evaluation import evaluate
from moebius.layers.mixture import Mixture
from moebius.storage.editing import add_expert as with_expert

# The share of the rows that are served worst, and how many of them are needed.
WORST = 1 / 3
FEWEST = 20


@remedy("loss")
def add_expert(case: Case) -> Treatment | Obstacle:
    """A new expert is trained on the third of the rows with the largest loss, and then with the gate on all rows.

    It has the architecture of the expert with the largest use; and, in a mixture that is the whole model, that of the
    gate, whichever has less loss on rows that were not fitted. The experts that there are stay as they are. Inside a
    network the new expert learns with the gate alone, for it has no loss by itself.

    Reference: ours; compare boosting, Freund, Schapire 1997.
    """
    place = case.place(case.call.model)
    if not place.is_single:
        return Obstacle("its layer has several gates over the same experts, and all of them would change")
    routes = record_routes(case)
    busiest = int(routes.weights.abs().sum(0).argmax())
    networks: dict[str, nn.Module] = {}
    like = fresh(_expert(place.layer, busiest), case.seed + 1)
    if like is not None:
        networks[f"a new expert like expert {busiest} was added"] = like
    width = routes.outputs.shape[-1]
    if place.path == "" and (network := _network_of_gate(case, place.gate, width)) is not None:
        networks["a new expert with the gate's network was added"] = network
    if not networks:
        return Obstacle("nothing tells how a new expert begins: experts and gate have parts without reset_parameters")
    forms: dict[str, Any] = {"": None} if place.router.trains_gate else {}
    if (soft := soft_form(place.router, place.count + 1)) is not None:
        forms[", with all experts running while it trains"] = soft
    if not forms:
        return Obstacle(f"no gradient reaches the gate through {type(place.router).__name__}")
    worst = _worst_rows(case)
    makers: dict[str, Callable[[], nn.Module]] = {
        f"{text}, and the gate was trained{form_text}": functools.partial(_added, case, network, worst, form)
        for text, network in networks.items()
        for form_text, form in forms.items()
    }
    return best_of(case, makers)


def _expert(layer: Any, number: int) -> nn.Module:
    return layer.experts[number]


def _network_of_gate(case: Case, gate: nn.Module, width: int) -> nn.Module | None:
    network = gate_network(gate, width, case.seed + 1)
    if network is None:
        return None
    row = case.rows.take(slice(0, 1))
    try:
        alone = Mixture(Uniform(1), [network], combine=getattr(case.call.model, "combine", None))
        (evaluation,) = evaluate(case.call_of(alone), case.task.for_model(alone), row)
    except (RuntimeError, ValueError, MoebiusError):
        return None
    return network if evaluation.shape else None


def _worst_rows(case: Case) -> Split | None:
    (evaluation,) = evaluate(case.call, case.task, case.halves()[0])
    count = round(WORST * len(evaluation.losses))
    if count < FEWEST:
        return None
    worst = evaluation.losses.nan_to_num(posinf=1e30).argsort(descending=True)[:count]
    return case.halves()[0].take(worst.to(case.rows.device))


def _added(case: Case, network: nn.Module, worst: Split | None, form: Any) -> nn.Module:
    path = case.place(case.call.model).path
    # Each form begins with the same network.
    expert = fresh(network, case.seed + 1) or network
    copied = case.copy()
    if path == "" and worst is not None and isinstance(copied, Mixture):
        _train_alone(case, expert, copied.combine, worst)
    copied = with_expert(copied, expert, at=path)
    place = case.place(copied)
    layer: Any = place.layer
    parameters, stacked = expert_parameters(layer.experts, place.count - 1)
    router = place.router
    if form is not None:
        place.put(router=form)
    fit_part(case, copied, [*place.gate.parameters(), *parameters], last_only=stacked)
    place.put(router=router)
    return copied


def _train_alone(case: Case, expert: nn.Module, combine: Any, rows: Split) -> None:
    """Train an expert that does the whole task by itself."""
    alone = Mixture(Uniform(1), [expert], combine=combine)
    fit_part(replace(case, rows=rows), alone, list(expert.parameters()))
