"""Training from Python: the gates over experts that exist, the experts, or both."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import torch
from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_data import Rows, build_dataset
from moebius.lab.training.fit_settings import fit_settings
from moebius.lab.training.loop import Loop
from moebius.lab.training.mixture_parts import MixtureLayer, mixture_layers, trainable_parts
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import Settings, TrainingKeywords
from moebius.layers.mixture import Mixture

log = logging.getLogger("moebius")


def fit(
    model: nn.Module,
    data: Rows | Dataset,
    trains: str = "both",
    validation: Rows | float | int = 0.1,
    *,
    seed: int = 0,
    folder: Path | str | None = None,
    device: str = "cpu",
    listen: Callable[[Event], None] | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **training: Unpack[TrainingKeywords],
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
        seed: of the order of rows and everything random in training.
        folder: where checkpoints go: the same call goes on from them. None keeps nothing.
        device: "cpu" or "cuda".
        listen: receives the events; without it epochs go to the logger "moebius".
        settings: how to train, as in a recipe's `training`: a mapping or a `Settings`.
        training: fields of `moebius.lab.training.settings.Settings`, laid over `settings`: epochs, batch_size,
            optimizer, losses, augment, gate, experts, watch and more. Short forms are `lr` for the optimizer's, a
            number, a schedule or any function epoch → rate; `patience` and `plateau` for those of `watch`: end, and
            halve learning rates, after so many epochs without a better one on held-out rows. Here the precision "auto"
            is "fp32".

    Returns:
        The outcome: `test` (the held-out rows: predictions, losses, gate weights), `metrics` by epoch, each expert by
        itself (`alone`), and the accuracy of a perfect choice among them (`oracle`). The last two, and `one_expert`,
        are empty where the model is no mixture itself.

    Raises:
        ArgumentError: the model has no mixture inside, what is to be trained has no parameters, the optimizer lacks
            some of them, rows and labels do not fit, or a setting breaks a rule.
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
    checked = fit_settings(settings, training, trains)
    dataset = data if isinstance(data, Dataset) else build_dataset(model, data, validation, seed)
    if dataset.validation is None and checked.watch is not None:
        rule = "must hold rows out, for patience, plateau and watch decide by them"
        raise ArgumentError("validation", rule, validation, "validation=0.1")
    devices = range(torch.cuda.device_count()) if device == "cuda" else ()
    with (
        torch.random.fork_rng(devices),
        TemporaryDirectory() as temporary,
        _restored(model, checked.optimizer.kind),
        _frozen_experts(model, trains),
    ):
        if not any(values for name, values in trainable_parts(model).items() if not getattr(checked, name).freeze):
            rule = "names parts that have no parameters, or all are frozen"
            raise ArgumentError("trains", rule, trains, 'trains="both"')
        run_folder = Path(temporary if folder is None else folder)
        member = Member(lambda: model, checked, seed, run_folder, listen or _log_event)
        ((_, trained),) = Loop([member], dataset, run_folder / "state" / "checkpoint.safetensors", device).train()
    model.eval()
    return trained


@contextmanager
def _restored(model: nn.Module, optimizer: object) -> Iterator[None]:
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
        figures = (event.epoch, event.score_name, event.score, event.loss, event.test_score)
        log.info("epoch %d: training %s %.3f, loss %.3f; held out %.3f", *figures)
