"""Balance: train with a loss that spreads the rows of large batches over the experts."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from moebius.core.recording import Recorder
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.remedies._fitting import best_of, fit_part, used_experts
from moebius.lab.remedies._fresh import fresh
from moebius.losses.batch_entropy import batch_entropy
from moebius.losses.importance import importance
from moebius.losses.mutual_information import mutual_information
from moebius.losses.switch_balance import switch_balance

# Rows of a batch, over all of which use is balanced.
BATCH = 512
# Of the loss; the second one where experts have to learn from nothing what the busy one knows.
WEIGHTS = (0.1, 1.0)


@remedy("use")
def balance(case: Case) -> Treatment | Obstacle:
    """The gate is trained with a loss that is least where a batch of 512 rows uses all experts alike.

    The loss is `switch_balance` where the router selects experts, `mutual_information` where all run, or
    `batch_entropy` (`importance` for gates without a distribution), of weight .1 or 1: the rows of a whole batch have
    to use all experts, while each of them may decide. Balance within small batches would forbid experts for groups of
    rows. The gate starts from where it is and anew; anew also together with its experts, since an expert without rows
    has learned nothing. Of the forms that make use more even, half of the way at least, the one with the least loss of
    the task on rows that were not fitted is kept.

    Reference: Qiu et al. 2025, Demons in the Detail, arXiv:2501.11873, for balance over the global batch.
    """
    place = case.place(case.call.model)
    if not place.router.trains_gate:
        return Obstacle(f"no gradient reaches the gate through {type(place.router).__name__}")
    if not any(parameter.requires_grad for parameter in place.gate.parameters()):
        return Obstacle("the gate has nothing to train")
    first, second = batch_entropy, mutual_information
    if not _gives_distribution(case):
        first = second = importance
    elif place.router.max_active(place.count) < place.count:
        second = switch_balance
    forms = [(first, WEIGHTS[0], False, False)]
    if fresh(place.gate, case.seed) is not None:
        forms += [(first, WEIGHTS[0], True, False), (second, WEIGHTS[0], True, False)]
        forms += [(second, weight, True, True) for weight in WEIGHTS if place.is_single]
    makers: dict[str, Callable[[], nn.Module]] = {}
    for loss, weight, is_fresh, with_experts in forms:
        parts = "gate and experts were" if with_experts else "the gate was"
        start = "from a fresh gate" if is_fresh else "from where it is"
        text = f"{parts} trained {start} with {weight:g} · {loss.__name__}"
        makers[text] = functools.partial(_balanced, case, (loss, weight), is_fresh, with_experts)
    before = used_experts(case, case.call.model)
    half_way = (before + place.count) / 2
    return best_of(case, makers, lambda model: used_experts(case, model) < half_way)


def _gives_distribution(case: Case) -> bool:
    recorder = Recorder(case.call.model)
    batch = next(ordered_batches(case.rows.take(slice(0, 8)), 8, channels_last=case.call.channels_last))
    with evaluation_mode(case.call.model), torch.no_grad(), recorder.recording() as log:
        case.call(batch.x, batch.domains)
    return all(routing.distribution for routings in log.values() for routing in routings)


def _balanced(case: Case, loss: tuple[Any, float], is_fresh: bool, with_experts: bool) -> nn.Module:
    copied = case.copy()
    place = case.place(copied)
    if is_fresh:
        place.put(gate=fresh(place.gate, case.seed))
    parameters = [*place.gate.parameters(), *place.router.parameters()]
    if with_experts:
        layer: Any = place.layer
        parameters += layer.experts.parameters()
    fit_part(case, copied, parameters, [loss], BATCH)
    return copied
