"""Training a mixture from Python: the gate over experts that exist, the experts, or both."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from moebius.experts.adapter import Adapter
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import scale
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.loop import Trainer
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import Part, Plateau, Settings, Watch
from moebius.layers.mixture import Mixture

Rows = tuple[Tensor, Tensor]
TRAINS = ("gate", "experts", "both", "alternate", "gate_first")
log = logging.getLogger("moebius")


def fit(
    model: nn.Module,
    data: Rows | Dataset,
    trains: str = "both",
    validation: Rows | float | int = 0.1,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float | int | Mapping[str, Any] = 1e-3,
    optimizer: str = "adam",
    losses: Sequence[Mapping[str, Any]] = (),
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
    """Train a mixture that classifies, in place; it ends with the weights of the best epoch, in eval mode.

    With `trains="gate"`, and for adapters that are frozen, what the experts say of a row is computed once and looked up
    in every later epoch, unless augmentation changes the rows: the same result, many times faster.

    Arguments:
        model: the mixture.
        data: inputs (T, …), floating-point or uint8 images (which are scaled to [0, 1]), and labels (T,) 0 … C−1; or a
            `moebius.lab.data` set.
        trains: "gate" (gates and routers; experts stay as they are, in eval), "experts" (the other way round), "both",
            "alternate" (gate in the first epoch, experts in the second, and so on), or "gate_first" (the gate alone for
            the first half, then both).
        validation: inputs and labels that are held out, or the share of `data` to hold out, drawn by `seed`; 0 for
            none: then the last epoch's weights are kept. A data set brings its own.
        epochs, batch_size: how long, and how many rows a step.
        lr: learning rate, or a schedule as in recipes ({"kind": "cosine", "start": 1e-3, "end": 0, "epochs": 20}).
        optimizer: adam, adamw or sgd.
        losses: gate losses as in recipes ([{"kind": "switch_balance", "weight": 0.01}]).
        augment: what changes the images of training steps (`moebius.lab.data.augmentation`).
        patience: end after so many epochs without a better one on held-out rows.
        plateau: halve learning rates after so many epochs without a better one.
        remember: whether what frozen experts say is computed once, where that is exact.
        seed: of the order of rows and everything random in training.
        folder: where checkpoints go: the same call goes on from them. None keeps nothing.
        device: "cpu" or "cuda".
        precision: fp32 or bf16.
        listen: hears of progress; without it epochs go to the logger "moebius".

    Returns:
        What came out: `test` (the held-out rows: predictions, losses, gate weights), `metrics` by epoch, what each
        expert does by itself (`alone`) and what a perfect choice among them would reach (`oracle`).

    Raises:
        ArgumentError: what is to be trained has no parameters, or rows and labels do not fit.
        TrainingError: a loss is not finite.

    Example:
        >>> import moebius as mb
        >>> x = torch.randn(200, 4)
        >>> experts = [nn.Linear(4, 2), nn.Linear(4, 2)]
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), experts, combine=mb.LogMixture())
        >>> fitted = fit(moe, (x, (x[:, 0] > 0).long()), epochs=30, lr=0.03)
        >>> fitted.test.accuracy > 0.8
        True

    Reference: ours.
    """
    if not isinstance(model, Mixture):
        rule = "must be a mixture; for another module with mixtures inside write a loop of your own"
        raise ArgumentError("model", rule, type(model).__name__, "mb.Mixture(gate, [model, …])")
    if trains not in TRAINS:
        raise ArgumentError("trains", f"needs one of {', '.join(TRAINS)}", trains, 'trains="gate"')
    dataset = data if isinstance(data, Dataset) else _dataset(model, data, validation, seed)
    settings = Settings.from_plain(
        {
            "epochs": positive_integer("epochs", epochs),
            "batch_size": positive_integer("batch_size", batch_size),
            "optimizer": {"kind": optimizer, "lr": lr},
            "losses": list(losses),
            "precision": precision,
            "remember": remember,
        }
    )
    settings = replace(settings, augment=tuple(augment), **_parts(trains, epochs))
    if dataset.validation is not None:
        watch = Watch(patience=patience, plateau=None if plateau is None else Plateau(plateau))
        settings = replace(settings, watch=watch)
    elif patience is not None or plateau is not None:
        raise ArgumentError(
            "validation", "must hold rows out, for patience and plateau decide by them", validation, "validation=0.1"
        )
    devices = range(torch.cuda.device_count()) if device == "cuda" else ()
    with torch.random.fork_rng(devices), TemporaryDirectory() as temporary, _frozen(model, trains):
        place = Path(temporary if folder is None else folder)
        trainer = Trainer(lambda: model, dataset, settings, seed, place, device, listen or _say)
        if not trainer.trainable:
            raise ArgumentError(
                "trains", "names parts that have no parameters, or all are frozen", trains, 'trains="both"'
            )
        trained = trainer.train()
    model.eval()
    return trained


def _parts(trains: str, epochs: int) -> dict[str, Part]:
    if trains == "gate":
        return {"experts": Part(freeze=True)}
    if trains == "experts":
        return {"gate": Part(freeze=True)}
    if trains == "alternate":
        return {"gate": Part(period=2, phase=0), "experts": Part(period=2, phase=1)}
    return {"experts": Part(start_epoch=epochs / 2)} if trains == "gate_first" else {}


@contextmanager
def _frozen(model: Mixture, trains: str) -> Iterator[None]:
    """Experts stand in frozen adapters for a while, so that what they say can be remembered; all flags come back."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    wrapped: list[tuple[nn.ModuleList, int, nn.Module]] = []
    try:
        for mixture in [part for part in model.modules() if isinstance(part, Mixture)] if trains == "gate" else ():
            if not isinstance(mixture.experts, nn.ModuleList):
                continue  # a stack's experts compute as one, which costs less than looking them up one by one
            for number, expert in enumerate(mixture.experts):
                if not any(isinstance(part, Adapter | Mixture) for part in expert.modules()):
                    wrapped.append((mixture.experts, number, expert))
        adapters = {expert: Adapter(expert, frozen=True) for _, _, expert in wrapped}
        for experts, number, expert in wrapped:
            experts[number] = adapters[expert]
        yield
    finally:
        for experts, number, expert in wrapped:
            experts[number] = expert
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _dataset(model: Mixture, data: Rows, validation: Rows | float | int, seed: int) -> Dataset:
    rows = _split("data", data)
    if isinstance(validation, tuple):
        train, held_out = rows, _split("validation", validation)
    else:
        if not 0 <= validation < 1:
            raise ArgumentError("validation", "needs rows, or a share of at least 0 and below 1", validation, "0.1")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        count = round(validation * len(rows))
        held_out = rows.take(order[:count].sort().values) if count else None
        train = rows.take(order[count:].sort().values) if count else rows
    if not len(train):
        raise ArgumentError("data", "must leave rows to train on", len(train), "more rows, or validation=0.1")
    classes = _classes(model, train)
    for split in (train, held_out):
        if split is not None and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < classes:
            rule = f"needs labels 0 … {classes - 1}, for the mixture has so many outputs"
            fix = "labels that count the outputs, or experts with an output more"
            raise ArgumentError("data", rule, int(split.labels.max()), fix)
    test = train if held_out is None else held_out
    names = tuple(str(number) for number in range(classes))
    return Dataset(train, held_out, test, names, ("data",), "data given to fit")


def _split(name: str, rows: Rows) -> Split:
    x, labels = rows
    if len(x) != len(labels) or labels.ndim != 1 or labels.is_floating_point():
        rule = "needs inputs and as many labels, which are whole numbers"
        raise ArgumentError(name, rule, (tuple(x.shape), tuple(labels.shape), labels.dtype), "(x, labels.long())")
    return Split(x, labels.long(), torch.zeros(len(labels), dtype=torch.long, device=labels.device))


def _classes(model: Mixture, split: Split) -> int:
    """How many outputs the mixture has."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    x = split.images[:1].to(device)
    with evaluation_mode(model), torch.no_grad():
        return model(scale(x)).shape[-1]


def _say(event: Event) -> None:
    if event.kind == "note":
        log.info("%s", event.text)
    elif event.kind == "epoch":
        said = (event.epoch, event.accuracy, event.loss, event.test_accuracy)
        log.info("epoch %d: training accuracy %.3f, loss %.3f; held out %.3f", *said)
