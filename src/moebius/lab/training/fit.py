"""Training from Python: the gates over experts that exist, the experts, or both."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Unpack

import torch
from torch import nn

from moebius.core.processes import Company, company
from moebius.kit.errors import ArgumentError
from moebius.kit.files import unsynced
from moebius.lab.data.split import Dataset
from moebius.lab.training.callbacks import CallbackLike, Callbacks, as_callbacks
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.fit_parts import fit_parts
from moebius.lab.training.fit_rows import Names
from moebius.lab.training.fit_settings import fit_settings
from moebius.lab.training.frozen_experts import FrozenExperts
from moebius.lab.training.loop import Loop
from moebius.lab.training.metrics import Metric
from moebius.lab.training.mixture_parts import mixture_layers, trainable_parts
from moebius.lab.training.outcome import Origin, Trained
from moebius.lab.training.process_group import launched_group
from moebius.lab.training.processes import Processes
from moebius.lab.training.progress import ProgressDisplay
from moebius.lab.training.settings import Settings, TrainingKeywords
from moebius.lab.training.shared_start import check_is_whole
from moebius.tasks._choice import TaskLike, as_task


def fit(
    model: nn.Module,
    data: Any,
    trains: str = "both",
    validation: Any = 0.1,
    *,
    task: TaskLike = "classification",
    test: Any = None,
    inputs: Names | None = None,
    target: Names | None = None,
    scale: str = "unit",
    metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    device: str = "auto",
    processes: Literal["all", "alone"] = "all",
    on_epoch: CallbackLike = None,
    on_step: CallbackLike = None,
    progress: bool = True,
    settings: Settings | Mapping[str, Any] | None = None,
    **training: Unpack[TrainingKeywords],
) -> Trained:
    """Train a model that is or holds mixtures, in place; it ends with its best epoch's weights, in eval mode.

    The loss is that of the task plus Σ weight · gate loss, summed over all mixtures inside. A classifier's outputs are
    log-probabilities where the model is a mixture whose combine declares `gives_log_probabilities` (`mb.LogMixture`),
    and logits of any other model (log-probabilities are logits, too).

    With `trains="gate"` and a mixture, and for adapters that are frozen, the outputs of the experts for a row are
    computed once and looked up in every later epoch, unless augmentation changes the rows: the same result, many times
    faster.

    Arguments:
        model: a mixture, or any module with mixtures inside, x (T, …) → what the task reads, such as class scores
            (T, C): `nn.Sequential(body, mixture, head)`, a network with an `mb.layers.SparseFFN`, a subclass of
            `mb.Mixture`. A mixture receives the context {"domain": (T,)}; mixtures inside another module find it around
            the call. Inputs of several parts go to it in turn, those of a mapping by name.
        data: inputs (T, …) and targets, such as labels (T,) 0 … C−1: a pair of tensors, arrays or DataFrames; a
            DataFrame, a Hugging Face data set or a mapping of columns, with `target`; a `DataLoader`, a torch data set
            or another iterable of batches, which is read into memory; or a `moebius.lab.data` set. uint8 images are
            scaled as `scale` says.
        trains: "gate" (gates and routers of all mixtures inside; all else stays as it is, in eval), "experts" (all but
            gates and routers: also layers around the mixtures), "both", "alternate" (gates in the first epoch, the
            rest in the second, and so on), or "gate_first" (gates alone for the first half, then both). Parameters that
            do not require a gradient stay as they are.
        validation: rows that are held out, in any of these forms, or the share of `data` to hold out, drawn by `seed`;
            0 for none: then the last epoch's weights are kept. A `moebius.lab.data` set brings its own.
        task: what is learned: a kind of room `tasks`, such as "regression", a mapping of it with keywords, an object,
            or a function (output, target) → loss of each row.
        test: test rows, which decide nothing.
        inputs, target: names of columns, for data that have some: one, several, or a mapping of own names to one or
            several. A mixture takes `inputs={"gate": "meta", "experts": "image"}`; inputs by other names go to the gate
            and to the experts whose forward has a parameter of the name.
        scale: the numbers that the model gets for uint8 pixels 0 … 255: "unit" for [0, 1], "raw" for 0 … 255, "signed"
            for [−1, 1], or "standardised", by mean and deviation of each channel over the training rows. A
            `moebius.lab.data` set brings its own.
        metrics: name → function (outputs of all rows, targets) → a number, such as an object of torchmetrics; computed
            on held-out and test rows after every epoch.
        seed: of the order of rows and everything random in training.
        folder: where checkpoints go: the same call goes on from them. None keeps nothing.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        processes: "all" trains one model in all processes of the process group, or of the launcher (`torchrun`,
            `accelerate launch`), each of which has to make the same call; "alone" trains in this process, whatever the
            others do. Without a process group or a launcher the two are the same.
        on_epoch, on_step: functions that receive a `Moment` (epoch, step, metrics by name, model, learning rates)
            after every epoch and for every step, or several. One that returns True ends the training: the epoch under
            way is evaluated as it is. Figures of steps are read a few times a second, so that no step waits for them:
            `on_step` then hears of all steps since the last time, in order, with the model as it is.
        progress: whether a terminal or a notebook shows the progress; epochs go to the logger "moebius" either way.
        settings: how to train, as in a recipe's `training`: a mapping or a `Settings`.
        training: fields of `moebius.lab.training.settings.Settings`, laid over `settings`: epochs, batch_size,
            optimizer, losses, augment, gate, experts, watch and more. Short forms are `lr` for the optimizer's, a
            number, a schedule or any function epoch → rate; `patience` and `plateau` for those of `watch`: end, and
            halve learning rates, after so many epochs without a better one on held-out rows. Here the precision "auto"
            is "fp32".

    Returns:
        The outcome: `train`; `held_out`, the rows that were held out and chose the epoch; `test`, only where test rows
        are given (predictions, losses, gate weights of the rows); `metrics` by epoch, which `frame()` gives as a
        DataFrame; each expert by itself (`alone`), and the score of a perfect choice among them (`oracle`), on the test
        rows, or else on the held-out ones. The last two, and `one_expert`, are empty where the model is no mixture
        itself.

    Raises:
        ArgumentError: the model has no mixture inside, what is to be trained has no parameters, the optimizer lacks
            some of them, inputs, targets, task and model do not fit, a setting breaks a rule, or calls in several
            processes differ.
        LostProcessError: another process that trains the model has ended.
        TrainingError: a loss is not finite.

    Example:
        >>> import moebius as mb
        >>> x = torch.randn(200, 4)
        >>> experts = [nn.Linear(4, 2), nn.Linear(4, 2)]
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), experts, combine=mb.LogMixture())
        >>> fitted = fit(moe, (x, (x[:, 0] > 0).long()), epochs=30, lr=0.03, losses=[(mb.losses.batch_entropy, 0.01)])
        >>> fitted.held_out.accuracy > 0.8
        True

    Reference: ours.
    """
    if not mixture_layers(model):
        rule = "must be a mixture, or have one inside"
        raise ArgumentError("model", rule, type(model).__name__, "mb.Mixture(mb.gates.Linear(features, 1), [model])")
    checked = fit_settings(settings, training, trains)
    learned, device = as_task(task), _device(device)
    if processes not in ("all", "alone"):
        raise ArgumentError("processes", "needs all or alone", processes, 'processes="alone"')
    check_is_whole(model)
    if isinstance(data, Dataset):
        if scale not in ("unit", data.scale.kind):
            raise ArgumentError("scale", "is that of the data set", scale, f"data.with_scale({scale!r})")
        dataset = data
    else:
        dataset = build_dataset(model, learned, data, validation, seed, test, inputs, target, scale)
    if dataset.validation is None and checked.watch is not None:
        rule = "must hold rows out, for patience, plateau and watch decide by them"
        raise ArgumentError("validation", rule, validation, "validation=0.1")
    devices = range(torch.cuda.device_count()) if device == "cuda" else ()
    frozen = FrozenExperts(model, trains == "gate")
    callbacks = Callbacks(as_callbacks("on_epoch", on_epoch), as_callbacks("on_step", on_step), frozen.unwrapped)
    with (
        _company(processes, device) as is_first,
        torch.random.fork_rng(devices),
        TemporaryDirectory() as temporary,
        unsynced() if folder is None or not is_first else nullcontext(),
        _restored(model, checked.optimizer.kind),
        frozen.wrapped(),
        ProgressDisplay(checked.epochs, progress and is_first) as display,
    ):
        if not any(values for name, values in trainable_parts(model).items() if not getattr(checked, name).freeze):
            rule = "names parts that have no parameters, or all are frozen"
            raise ArgumentError("trains", rule, trains, 'trains="both"')
        fit_parts(model, dataset.train, [part for part in ("gate", "experts") if not getattr(checked, part).freeze])
        run_folder = Path(temporary if folder is None or not is_first else folder)
        listen = display.show if is_first else lambda event: None
        member = Member(lambda: model, checked, seed, run_folder, listen, callbacks)
        path = run_folder / "state" / "checkpoint.safetensors"
        ((_, trained),) = Loop([member], dataset, path, device, task=learned, metrics=metrics or {}).train()
    model.eval()
    precision = "fp32" if checked.precision == "auto" else checked.precision
    return replace(trained, origin=Origin(dataset, learned, seed, precision))


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, 'device="auto"')
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextmanager
def _company(processes: str, device: str) -> Iterator[bool]:
    """The block trains with other processes, or alone; yields whether this process is the first that trains."""
    with company(Company.ALONE) if processes == "alone" else launched_group(device):
        yield Processes.current().is_first


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
