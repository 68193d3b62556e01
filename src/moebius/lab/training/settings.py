"""How a mixture is trained: plain values, no recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.lab.training.gate_losses import GateLoss, as_gate_losses
from moebius.schedules import Schedule, as_schedule

OptimizerChoice = str | Callable[..., Optimizer] | Optimizer


@dataclass(frozen=True)
class Part:
    """Settings of the gates alone, or of the experts alone.

    Arguments:
        lr: learning rate over epochs; None for the optimizer's.
        freeze: never update the part.
        start_epoch: the epoch (from 0, may be a fraction) from which on the part is updated.
        period, phase: the part is updated in the epochs e (from 0) with e mod period = phase: parts that take turns.
    """

    lr: Schedule | None = None
    freeze: bool = False
    start_epoch: float | int = 0.0
    period: int = 1
    phase: int = 0

    def trains(self, epoch: float | int) -> bool:
        """Whether the part is updated at `epoch`."""
        return not self.freeze and epoch >= self.start_epoch and int(epoch) % self.period == self.phase


@dataclass(frozen=True)
class Plateau:
    """Learning rates fall while the held-out measure does not improve.

    Arguments:
        patience: epochs without a better one until the rates fall, and until they fall again.
        factor: multiplies the rates.
        least: no rate falls below this value.
    """

    patience: int
    factor: float | int = 0.5
    least: float | int = 0.0


@dataclass(frozen=True)
class Watch:
    """Decisions by held-out rows at the end of each epoch; the finished model has the weights of the best epoch.

    Arguments:
        measure: "accuracy" or "loss" of the held-out rows; it decides which epoch is better.
        patience: training ends after so many epochs without a better one; None for never.
        plateau: how learning rates fall; None for not at all.
        above: an epoch whose measure is no better than this value is never the best.
        restart: begin every epoch from the best weights so far; the optimizer keeps its state.
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
        weight: factor in the total.
        layers: "all" that have kernels (dense and convolutional), or "convolutions".
    """

    weight: float | int
    layers: Literal["all", "convolutions"] = "all"


@dataclass(frozen=True, repr=False)
class Settings:
    """How a mixture is trained.

    Arguments:
        epochs: passes over the training rows.
        batch_size: rows per step.
        optimizer: "adam", "adamw" or "sgd"; a class or function that takes parameter groups and returns an optimizer;
            or an optimizer over parameters of the model.
        lr: learning rate over epochs; None for the rates that the optimizer's groups have when it is built.
        optimizer_options: further keywords of torch's class, for an optimizer that is chosen by name.
        gate, experts: settings of these parts alone.
        losses: gate losses; the total is the cross-entropy plus Σ weight · loss.
        cross_entropy: weight of the cross-entropy of the mixture's output, over epochs.
        router: attribute of the routers (temperature, k, noise …) → its value over epochs, in training steps alone:
            evaluation and the finished model have the router as it was built.
        clip_norm: largest norm of all gradients together; None for no limit.
        l2: penalty on kernels in the loss; None for none.
        watch: decisions by held-out rows; None keeps the epoch with the best accuracy on them, if there are any.
        augment: augmentations of the images of training steps, in order.
        views: draw so many augmented copies of the training rows once and train on them in turn, one copy an epoch,
            instead of drawing anew in every step: the outputs of frozen experts can then be cached.
        remember: compute the outputs of frozen parts for a row once, where that is exact.
        precision: "fp32", "bf16", or "auto" (see `choose_precision`).
        checkpoint_seconds: longest time between two checkpoints; one more is written at each epoch's end.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerChoice
    lr: Schedule | None = None
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

    def __repr__(self) -> str:
        defaults = vars(Settings(self.epochs, self.batch_size, ""))
        names = [each.name for each in fields(self)]
        # Schedules that are made anew for each object are equal by value.
        shown = [name for name in names if name in ("epochs", "batch_size") or getattr(self, name) != defaults[name]]
        return f"Settings({', '.join(f'{name}={_describe(getattr(self, name))}' for name in shown)})"

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Settings":
        """The settings that the `training` part of a resolved recipe describes.

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
        plain["watch"] = _watch_from(plain.get("watch"))
        plain["l2"] = None if plain.get("l2") is None else L2(**plain["l2"])
        plain["augment"] = tuple(_build_augmentation(augmentation) for augmentation in plain.get("augment") or ())
        plain["losses"] = as_gate_losses(plain.get("losses") or ())
        plain["cross_entropy"] = as_schedule(plain.get("cross_entropy", 1.0))
        plain["router"] = {name: as_schedule(value) for name, value in (plain.get("router") or {}).items()}
        kind, lr = optimizer.pop("kind"), as_schedule(optimizer.pop("lr"))
        settings = cls(optimizer=kind, lr=lr, optimizer_options=optimizer, **plain)
        if settings.gate.freeze and settings.experts.freeze:
            rule = "must leave the gate or the experts to train"
            raise ArgumentError("training", rule, "both frozen", "training: {gate: {freeze: false}}")
        return settings


def _describe(value: Any) -> str:
    """The text of a setting: losses and functions by their names, an optimizer by its class."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, GateLoss):
        return value.name
    if isinstance(value, Optimizer):
        return type(value).__name__
    return getattr(value, "__name__", repr(value))


def _watch_from(plain: Mapping[str, Any] | None) -> Watch | None:
    if plain is None:
        return None
    plateau = plain.get("plateau")
    return Watch(**{**plain, "plateau": None if plateau is None else Plateau(**plateau)})


def _build_augmentation(plain: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    return find("data.augmentation", plain["kind"])(**{key: value for key, value in plain.items() if key != "kind"})
