"""Training a part of a copy of a model, and choosing among several copies on rows that none was fitted to."""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.stack import Stack
from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Dataset, Split
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics.entropy import Entropy
from moebius.lab.remedies._case import Case, Obstacle, Treatment
from moebius.lab.training.evaluation import evaluate
from moebius.lab.training.fit import fit
from moebius.lab.training.mixture_parts import parts

# An epoch, after which the rows that choose are looked at, has this many steps at least: few rows are repeated in it.
EPOCH_STEPS = 40
EPOCHS = 20
PATIENCE = 5
BATCH = 128
RATE = 0.01


def fit_part(
    case: Case,
    model: nn.Module,
    parameters: Collection[nn.Parameter],
    losses: Sequence[Any] = (),
    batch_size: int = BATCH,
    lr: float = RATE,
    last_only: Collection[nn.Parameter] = (),
) -> None:
    """Train some parameters of a model on the case's rows, in place; all others stay as they are.

    The weights of the epoch with the least loss on the rows that choose are kept; rates are halved where the loss does
    not fall.

    Arguments:
        case: the rows.
        model: a copy.
        parameters: what is trained.
        losses: gate losses with their weights, as `mb.fit` takes them.
        batch_size: rows of a step.
        lr: rate of Adam.
        last_only: of these parameters (of stacks) the last expert's part alone is trained.

    Raises:
        MoebiusError: nothing is left to train, a loss does not fit the router, or it is not finite.
    """
    train, held_out = case.halves()
    train = _repeated(train, math.ceil(EPOCH_STEPS * batch_size / len(train)))
    data = Dataset(train, held_out, held_out, (), ("rows",), "rows of a remedy")
    trained = {id(parameter) for parameter in parameters}
    of_gates = {id(parameter) for parameter in parts(model)["gate"]}
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    with _trainable(model, trained), _last_part(last_only), _silence():
        fit(
            model,
            data,
            "gate" if trained <= of_gates else "both",
            task=case.task,
            seed=case.seed,
            device=device if device == "cuda" else "cpu",
            progress=False,
            epochs=EPOCHS,
            batch_size=batch_size,
            lr=lr,
            losses=list(losses),
            precision=case.call.precision,
            watch={"measure": "loss", "patience": PATIENCE, "plateau": {"patience": 2}},
        )
    model.eval()


@contextmanager
def _silence() -> Iterator[None]:
    """Inside the block a training warns of nothing: what a remedy cannot mend has been told already."""
    log = logging.getLogger("moebius")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _repeated(rows: Split, times: int) -> Split:
    return rows.take(torch.arange(len(rows), device=rows.device).repeat(times)) if times > 1 else rows


def held_out_loss(case: Case, model: nn.Module) -> tuple[float, float]:
    """The loss on the rows that choose (∞ where it is not finite), and minus the score."""
    (evaluation,) = evaluate(case.call_of(model), case.task.for_model(model), case.halves()[1])
    loss = evaluation.loss
    return (loss if math.isfinite(loss) else math.inf), -evaluation.score


def used_experts(case: Case, model: nn.Module) -> float:
    """exp(H) of the gate's mean weights over the rows that choose, 1 … E."""
    (evaluation,) = evaluate(case.call_of(model), case.task.for_model(model), case.halves()[1])
    return effective_experts(evaluation.gates[case.gate])


def effective_experts(weights: Tensor) -> float:
    """exp(H) of mean weights (T, E), of the rows that reached the gate: E for even use, 1 for a single expert."""
    rows = RoutedRows(weights[~weights.isnan().any(1)].float())
    return float(Entropy.of(rows)["effective_experts"].iloc[0])


def best_of(
    case: Case, candidates: Mapping[str, Callable[[], nn.Module]], misses: Callable[[nn.Module], bool] | None = None
) -> Treatment | Obstacle:
    """The copy with the least loss on the rows that choose.

    Arguments:
        case: the rows.
        candidates: what is done → a function that does it to a copy of the model. One that raises an error of moebius
            is passed over.
        misses: whether a copy misses what the remedy is for; such a one is taken only where all do.
    """
    results: list[tuple[tuple[float, ...], str, nn.Module]] = []
    reasons: list[str] = []
    for text, make in candidates.items():
        try:
            model = make()
            rank = (misses is not None and misses(model), *held_out_loss(case, model))
            results.append((rank, text, model))
        except MoebiusError as error:
            reasons.append(error.message)
    if not results:
        return Obstacle(reasons[0] if reasons else "nothing of it can be trained")
    _, text, model = min(results, key=lambda result: result[0])
    return Treatment(model.eval(), text)


@contextmanager
def _trainable(model: nn.Module, trained: Collection[int]) -> Iterator[None]:
    """Inside the block these parameters alone require a gradient."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter in flags:
            parameter.requires_grad_(id(parameter) in trained)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextmanager
def _last_part(parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """Inside the block the gradient of these parameters is 0 but for the last entry of the first axis."""

    def mask(gradient: Tensor) -> Tensor:
        masked = torch.zeros_like(gradient)
        masked[-1] = gradient[-1]
        return masked

    hooks = []
    try:
        for parameter in parameters:
            required = parameter.requires_grad
            hooks.append(parameter.requires_grad_(True).register_hook(mask))
            parameter.requires_grad_(required)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def expert_parameters(experts: Any, number: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of an expert; and those of them that are a stack's, of which a part alone is the expert's."""
    if isinstance(experts, Stack):
        stacked = list(experts.parameters())
        return stacked, stacked
    return list(experts[number].parameters()), []
