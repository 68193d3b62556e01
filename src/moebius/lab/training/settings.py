"""How a mixture is trained: plain values, no recipe."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.schedules import Schedule, as_schedule


@dataclass(frozen=True)
class Part:
    """What holds for just the gates, or just the experts.

    Arguments:
        lr: learning rate over epochs; None for the optimizer's.
        freeze: never update it.
        start_epoch: the epoch (from 0, may be a fraction) from which on it is updated.
        period, phase: it is updated in the epochs e (from 0) with e mod period = phase: parts that take turns.
    """

    lr: Schedule | None = None
    freeze: bool = False
    start_epoch: float | int = 0.0
    period: int = 1
    phase: int = 0

    def trains(self, epoch: float | int) -> bool:
        """Whether it is updated at this moment."""
        return not self.freeze and epoch >= self.start_epoch and int(epoch) % self.period == self.phase


@dataclass(frozen=True)
class Plateau:
    """Learning rates fall where held-out rows see no progress.

    Arguments:
        patience: after so many epochs without a better one, and then after as many again.
        factor: what rates are multiplied with.
        least: no rate falls below this.
    """

    patience: int
    factor: float | int = 0.5
    least: float | int = 0.0


@dataclass(frozen=True)
class Watch:
    """What held-out rows decide at each epoch's end; the best epoch's weights are those of the finished model.

    Arguments:
        measure: "accuracy" or "loss": what makes an epoch better.
        patience: training ends after so many epochs without a better one; None for never.
        plateau: how learning rates follow.
        above: an epoch whose measure is no better than this is never the best.
        restart: begin every epoch from the best weights so far, the optimizer's state as it is.
    """

    measure: Literal["accuracy", "loss"] = "accuracy"
    patience: int | None = None
    plateau: Plateau | None = None
    above: float | int | None = None
    restart: bool = False


@dataclass(frozen=True)
class L2:
    """weight · Σ w² over the kernels of the layers that train, as a term of the loss.

    Arguments:
        weight: in the total.
        layers: "all" that have kernels (dense and convolutional), or "convolutions".
    """

    weight: float | int
    layers: Literal["all", "convolutions"] = "all"


@dataclass(frozen=True)
class GateLoss:
    """A gate loss with its weight over epochs.

    Arguments:
        name: what its term is called.
        function: of a routing, and of the experts' own losses if it has a parameter for them.
        weight: in the total, over epochs.
        options: further keywords over epochs.
    """

    name: str
    function: Callable[..., Tensor]
    weight: Schedule
    options: Mapping[str, Schedule] = field(default_factory=dict)

    def at(self, epoch: float) -> Callable[..., Tensor]:
        """The function, with its options as they are at this moment."""
        if not self.options:
            return self.function
        return functools.partial(self.function, **{name: option(epoch) for name, option in self.options.items()})


@dataclass(frozen=True)
class Settings:
    """How a mixture is trained.

    Arguments:
        epochs: passes over the training rows.
        batch_size: rows per step.
        optimizer: "adam", "adamw" or "sgd".
        lr: learning rate over epochs.
        optimizer_options: further keywords of torch's class.
        gate, experts: what differs for these parts.
        losses: gate losses; the total is the cross-entropy plus Σ weight · loss.
        cross_entropy: weight of the cross-entropy of the mixture's output, over epochs.
        router: attribute of the routers (temperature, k, noise …) → its value over epochs, in training steps alone:
            evaluation and the finished model have the router as it was built.
        clip_norm: largest norm of all gradients together; None for no limit.
        l2: penalty on kernels in the loss; None for none.
        watch: what held-out rows decide; None to keep the epoch with the best accuracy on them, if there are any.
        augment: what changes the images of training steps, in order.
        views: draw so many augmented copies of the training rows once and train on them in turn, one copy an epoch,
            instead of drawing anew in every step: what frozen experts say of them can then be remembered.
        remember: compute what frozen parts say of a row once, where that is exact.
        precision: "fp32", "bf16", or "auto" (see `choose_precision`).
        checkpoint_seconds: longest time between two checkpoints; one more is written at each epoch's end.
    """

    epochs: int
    batch_size: int
    optimizer: str
    lr: Schedule
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    gate: Part = Part()
    experts: Part = Part()
    losses: tuple[GateLoss, ...] = ()
    cross_entropy: Schedule = field(default_factory=lambda: as_schedule(1.0))
    router: Mapping[str, Schedule] = field(default_factory=dict)
    clip_norm: float | int | None = None
    l2: L2 | None = None
    watch: Watch | None = None
    augment: tuple[Callable[[Tensor], Tensor], ...] = ()
    views: int | None = None
    remember: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_seconds: float | int = 30.0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Settings":
        """The settings that the `training` part of a resolved recipe names.

        Raises:
            ArgumentError, UnknownKindError: a schedule or a loss is not what its kind takes.

        Example:
            >>> plain = {"epochs": 1, "batch_size": 8, "optimizer": {"kind": "adam", "lr": 1e-3}}
            >>> Settings.from_plain(plain).lr(0.5)
            0.001
        """
        plain = dict(plain)
        optimizer = dict(plain.pop("optimizer"))
        for name in ("gate", "experts"):
            part = dict(plain.get(name) or {})
            if part.get("lr") is not None:
                part["lr"] = as_schedule(part["lr"])
            plain[name] = Part(**part)
        plain["watch"] = _watch(plain.get("watch"))
        plain["l2"] = None if plain.get("l2") is None else L2(**plain["l2"])
        plain["augment"] = tuple(_augmentation(one) for one in plain.get("augment") or ())
        plain["losses"] = tuple(_gate_loss(loss) for loss in plain.get("losses") or ())
        plain["cross_entropy"] = as_schedule(plain.get("cross_entropy", 1.0))
        plain["router"] = {name: as_schedule(value) for name, value in (plain.get("router") or {}).items()}
        kind, lr = optimizer.pop("kind"), as_schedule(optimizer.pop("lr"))
        settings = cls(optimizer=kind, lr=lr, optimizer_options=optimizer, **plain)
        if settings.gate.freeze and settings.experts.freeze:
            raise ArgumentError("training", "must leave the gate or the experts to train", "both frozen")
        names = [loss.name for loss in settings.losses]
        if len(set(names)) < len(names):
            raise ArgumentError("training.losses", "names a gate loss twice, and its terms are reported by name", names)
        return settings


def _watch(plain: Mapping[str, Any] | None) -> Watch | None:
    if plain is None:
        return None
    plateau = plain.get("plateau")
    return Watch(**{**plain, "plateau": None if plateau is None else Plateau(**plateau)})


def _augmentation(plain: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    return find("data.augmentation", plain["kind"])(**{key: value for key, value in plain.items() if key != "kind"})


def _gate_loss(plain: Mapping[str, Any]) -> GateLoss:
    given = {name: value for name, value in plain.items() if name not in ("kind", "weight")}
    function = find("losses", plain["kind"])
    fixed = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
    options = {name: as_schedule(value) for name, value in given.items() if name not in fixed}
    bound = functools.partial(function, **fixed) if fixed else function
    return GateLoss(plain["kind"], bound, as_schedule(plain.get("weight", 1.0)), options)
