"""Training from Python: the gates over experts that exist, the experts, or both."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from moebius.experts.adapter import Adapter
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.split import Dataset
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_data import Rows, build_dataset
from moebius.lab.training.gate_losses import LossChoice, as_gate_losses
from moebius.lab.training.loop import Loop
from moebius.lab.training.mixture_parts import MixtureLayer, mixture_layers, trainable_parts
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import OptimizerChoice, Part, Plateau, Settings, Watch
from moebius.layers.mixture import Mixture
from moebius.schedules import Schedule, as_schedule

TRAINS = ("gate", "experts", "both", "alternate", "gate_first")
# The learning rate of an optimizer that is chosen by name, as torch's classes have it.
RATE = 1e-3
log = logging.getLogger("moebius")


def fit(
    model: nn.Module,
    data: Rows | Dataset,
    trains: str = "both",
    validation: Rows | float | int = 0.1,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float | int | Mapping[str, Any] | Schedule | None = None,
    optimizer: OptimizerChoice = "adam",
    losses: Sequence[LossChoice] = (),
    augment: Sequence[Callable[[Tensor], Tensor]] = (),
    patience: int | None = None,
    plateau: int | None = None,
    remember: bool = True,
    seed: int = 0,
    folder: Path | str | None = None,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    listen: Callable[[Event], None] | None = None,
) -> Trained:
    """Train a classifier that is or holds mixtures, in place; it ends with its best epoch's weights, in eval mode.

    The loss is the cross-entropy of the outputs plus Σ weight · gate loss, summed over all mixtures inside. Outputs are
    log-probabilities where the model is a mixture whose combine declares `gives_log_probabilities` (`mb.LogMixture`),
    and logits of any other model (log-probabilities are logits, too).

    With `trains="gate"` and a mixture, and for adapters that are frozen, the outputs of the experts for a row are
    computed once and looked up in every later epoch, unless augmentation changes the rows: the same result, many times
    faster.

    Arguments:
        model: a mixture, or any module with mixtures inside, x (T, …) → class scores (T, C):
            `nn.Sequential(body, mixture, head)`, a network with an `mb.layers.SparseFFN`, a subclass of `mb.Mixture`.
            A mixture receives the context {"domain": (T,)}; mixtures inside another module find it around the call.
        data: inputs (T, …), floating-point or uint8 images (which are scaled to [0, 1]), and labels (T,) 0 … C−1; or a
            `moebius.lab.data` set.
        trains: "gate" (gates and routers of all mixtures inside; all else stays as it is, in eval), "experts" (all but
            gates and routers: also layers around the mixtures), "both", "alternate" (gates in the first epoch, the
            rest in the second, and so on), or "gate_first" (gates alone for the first half, then both). Parameters that
            do not require a gradient stay as they are.
        validation: inputs and labels that are held out, or the share of `data` to hold out, drawn by `seed`; 0 for
            none: then the last epoch's weights are kept. A data set brings its own.
        epochs, batch_size: passes over the rows, and rows per step.
        lr: learning rate: a number, a schedule as in recipes ({"kind": "cosine", "start": 1e-3, "end": 0,
            "epochs": 20}) or from `mb.schedules`, or any function epoch → rate. None for the optimizer's own: 1e-3 of
            adam, adamw and sgd, what a factory binds, or the rates of an optimizer object.
        optimizer: "adam", "adamw" or "sgd"; a class, or a function of parameter groups that returns an optimizer
            (`functools.partial(torch.optim.AdamW, weight_decay=0.1)`); or an optimizer over the model's parameters,
            which keeps its groups and, unless `lr` is given, its rates.
        losses: gate losses, each a mapping as in recipes ({"kind": "switch_balance", "weight": 0.01}, whose kind may
            be a function), a function `(routing) -> scalar` or `(routing, expert_losses) -> scalar` with weight 1 (see
            `mb.needs`), or a pair (function, weight); a weight is a number or a schedule. Terms are named after the
            functions.
        augment: augmentations of the images of training steps (`moebius.lab.data.augmentation`).
        patience: end after so many epochs without a better one on held-out rows.
        plateau: halve learning rates after so many epochs without a better one.
        remember: whether the outputs of frozen experts are computed once, where that is exact.
        seed: of the order of rows and everything random in training.
        folder: where checkpoints go: the same call goes on from them. None keeps nothing.
        device: "cpu" or "cuda".
        precision: fp32 or bf16.
        listen: receives the events; without it epochs go to the logger "moebius".

    Returns:
        The outcome: `test` (the held-out rows: predictions, losses, gate weights), `metrics` by epoch, each expert by
        itself (`alone`), and the accuracy of a perfect choice among them (`oracle`). The last two, and `one_expert`,
        are empty where the model is no mixture itself.

    Raises:
        ArgumentError: the model has no mixture inside, what is to be trained has no parameters, the optimizer lacks
            some of them, or rows and labels do not fit.
        TrainingError: a loss is not finite.

    Example:
        >>> import moebius as mb
        >>> x = torch.randn(200, 4)
        >>> experts = [nn.Linear(4, 2), nn.Linear(4, 2)]
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), experts, combine=mb.LogMixture())
        >>> fitted = fit(moe, (x, (x[:, 0] > 0).long()), epochs=30, lr=0.03, losses=[(mb.losses.batch_entropy, 0.01)])
        >>> fitted.test.accuracy > 0.8
        True

    Reference: ours.
    """
    if not mixture_layers(model):
        rule = "must be a mixture, or have one inside"
        raise ArgumentError("model", rule, type(model).__name__, "mb.Mixture(mb.gates.Linear(features, 1), [model])")
    if trains not in TRAINS:
        fix = f'trains="gate"    # {did_you_mean(trains, TRAINS)}'
        raise ArgumentError("trains", f"needs one of {', '.join(TRAINS)}", trains, fix)
    dataset = data if isinstance(data, Dataset) else build_dataset(model, data, validation, seed)
    watch = None
    if dataset.validation is not None:
        watch = Watch(patience=patience, plateau=None if plateau is None else Plateau(plateau))
    elif patience is not None or plateau is not None:
        rule = "must hold rows out, for patience and plateau decide by them"
        raise ArgumentError("validation", rule, validation, "validation=0.1")
    if lr is None and isinstance(optimizer, str):
        lr = RATE
    settings = Settings(
        epochs=positive_integer("epochs", epochs),
        batch_size=positive_integer("batch_size", batch_size),
        optimizer=optimizer,
        lr=None if lr is None else as_schedule(lr),
        losses=as_gate_losses(losses),
        watch=watch,
        augment=tuple(augment),
        remember=remember,
        precision=precision,
    )
    settings = replace(settings, **_part_settings(trains, epochs))
    devices = range(torch.cuda.device_count()) if device == "cuda" else ()
    with (
        torch.random.fork_rng(devices),
        TemporaryDirectory() as temporary,
        _restored(model, optimizer),
        _frozen_experts(model, trains),
    ):
        if not any(values for name, values in trainable_parts(model).items() if not getattr(settings, name).freeze):
            rule = "names parts that have no parameters, or all are frozen"
            raise ArgumentError("trains", rule, trains, 'trains="both"')
        run_folder = Path(temporary if folder is None else folder)
        member = Member(lambda: model, settings, seed, run_folder, listen or _log_event)
        ((_, trained),) = Loop([member], dataset, run_folder / "state" / "checkpoint.safetensors", device).train()
    model.eval()
    return trained


def _part_settings(trains: str, epochs: int) -> dict[str, Part]:
    if trains == "gate":
        return {"experts": Part(freeze=True)}
    if trains == "experts":
        return {"gate": Part(freeze=True)}
    if trains == "alternate":
        return {"gate": Part(period=2, phase=0), "experts": Part(period=2, phase=1)}
    return {"experts": Part(start_epoch=epochs / 2)} if trains == "gate_first" else {}


@contextmanager
def _restored(model: nn.Module, optimizer: OptimizerChoice) -> Iterator[None]:
    """After the block parameters require gradients as before it, and an optimizer object has its rates again."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    groups = optimizer.param_groups if isinstance(optimizer, torch.optim.Optimizer) else []
    rates = [group["lr"] for group in groups if "lr" in group]
    try:
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for group, rate in zip((group for group in groups if "lr" in group), rates, strict=True):
            group["lr"] = rate


@contextmanager
def _frozen_experts(model: nn.Module, trains: str) -> Iterator[None]:
    """With trains="gate", experts stand in frozen adapters inside the block, so that their outputs can be cached."""
    mixtures = [layer for layer in mixture_layers(model) if isinstance(layer, Mixture)]
    wrapped: list[tuple[nn.ModuleList, int, nn.Module]] = []
    try:
        for mixture in mixtures if trains == "gate" else ():
            if not isinstance(mixture.experts, nn.ModuleList):
                continue  # a stack's experts compute as one, which costs less than looking them up one by one
            for number, expert in enumerate(mixture.experts):
                if not any(isinstance(module, Adapter | MixtureLayer) for module in expert.modules()):
                    wrapped.append((mixture.experts, number, expert))
        adapters = {expert: Adapter(expert, frozen=True) for _, _, expert in wrapped}
        for experts, number, expert in wrapped:
            experts[number] = adapters[expert]
        yield
    finally:
        for experts, number, expert in wrapped:
            experts[number] = expert


def _log_event(event: Event) -> None:
    if event.kind == "note":
        log.info("%s", event.text)
    elif event.kind == "epoch":
        figures = (event.epoch, event.accuracy, event.loss, event.test_accuracy)
        log.info("epoch %d: training accuracy %.3f, loss %.3f; held out %.3f", *figures)
