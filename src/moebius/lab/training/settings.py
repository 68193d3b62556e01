"""How a mixture is trained: a recipe's `training`, and the keywords of `mb.fit`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field
from torch import Tensor

from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import AtLeastOne, Strict, place_of
from moebius.lab.training.described import Amount, AmountLike, Augmentation, Described, Rate
from moebius.lab.training.gate_losses import GateLosses, LossLike
from moebius.lab.training.optimizer_choice import OptimizerChoice, OptimizerLike


class Part(Strict):
    """What applies to the parameters of the gates, or of the experts, alone.

    Arguments:
        lr: their learning rate, at least 0; null for the optimizer's.
        freeze: whether they stay as they are.
        start_epoch: they train from this epoch on, counted from 0; fractions are allowed.
        period: they train in every period-th epoch.
        phase: the first of these epochs, from 0: gate and experts with different phases take turns.
    """

    lr: Annotated[Rate | None, place_of("rate-or-null")] = None
    freeze: bool = False
    start_epoch: float = Field(default=0.0, ge=0)
    period: AtLeastOne = 1
    phase: int = Field(default=0, ge=0)

    def trains(self, epoch: float | int) -> bool:
        """Whether the part is updated at `epoch`."""
        return not self.freeze and epoch >= self.start_epoch and int(epoch) % self.period == self.phase


class Plateau(Strict):
    """Learning rates that fall when the held-out rows show no progress.

    Arguments:
        patience: the rates fall after this many epochs without a better one (of those above `watch.above`, if that is
            given), and again after as many more.
        factor: what the rates are multiplied with, between 0 and 1.
        least: no rate falls below this, at least 0.
        start: the rate that falls, the same for all parts, above 0: the first fall gives start · factor, also to a part
            whose rate was lower. Null lets each part's own rate fall.
    """

    patience: AtLeastOne
    factor: float = Field(default=0.5, gt=0, lt=1)
    least: float = Field(default=0.0, ge=0)
    start: float | None = Field(default=None, gt=0)

    def fallen(self, rate: float, falls: int) -> float:
        """The rate that is left of a part's own after a number of falls.

        Example:
            >>> Plateau(patience=4).fallen(1e-3, 2), Plateau(patience=4, start=1e-3).fallen(1e-4, 1)
            (0.00025, 0.0005)
        """
        if not falls:
            return rate
        rate = rate if self.start is None else self.start
        return max(rate * self.factor**falls, min(rate, self.least))


class Watch(Strict):
    """What the held-out rows decide at the end of each epoch: the weights of the best epoch are kept.

    Arguments:
        measure: what makes an epoch better: loss, score, or any other figure of the held-out rows by its name, such as
            accuracy or a metric of the task.
        mode: whether more or less of it is better, max or min; null for what its name tells.
        patience: training ends after this many epochs without a better one; null trains all epochs.
        plateau: how learning rates fall without progress; null to leave them.
        above: only an epoch with a measure above this counts as the best; null for any.
        restart: whether every epoch begins from the best weights so far; the optimizer's state stays as it is.
    """

    measure: str = Field(default="score", min_length=1)
    mode: Literal["max", "min"] | None = None
    patience: AtLeastOne | None = None
    plateau: Plateau | None = None
    above: float | None = None
    restart: bool = False


class L2(Strict):
    """A penalty on the squares of kernels: weight · Σ w² is a term of the loss.

    Arguments:
        weight: factor of the sum, at least 0.
        layers: all layers that have kernels (dense and convolutional), or convolutions only.
    """

    weight: float = Field(ge=0)
    layers: Literal["all", "convolutions"] = "all"


class Settings(Strict):
    """How a model is trained; in a recipe every variant, unless the variant has a `training` of its own.

    In Python a value may also be an object: a function as a loss (`gate_losses.GateLoss`), a class, a function or an
    object as the optimizer (`optimizer_choice.OptimizerChoice`), a function of the epoch for a number that follows a
    schedule, and a function of images as an augmentation.

    Arguments:
        epochs: number of passes over the training rows, at least 1.
        batch_size: rows in a batch, at least 1.
        accumulate: batches in a step, at least 1: their gradients add up to that of one batch of all their rows.
        optimizer: what updates the parameters.
        gate: what applies to the gates and routers alone.
        experts: what applies to the experts alone.
        losses: gate losses, added to the loss of the task.
        cross_entropy: factor of the task's loss of the mixture's output (for classes the cross-entropy), at least 0.
        router: numbers of the router that follow a schedule while training, by keyword.
        clip_norm: largest norm of all gradients together, above 0; null for no limit.
        l2: a penalty on kernels; null for none.
        watch: what held-out rows decide; needs data.validation_rows. Null trains all epochs, and keeps the epoch of
            the best accuracy on held-out rows if there are any, else the last.
        augment: random changes of the training images, in this order.
        views: number of augmented copies of the training rows that are drawn once and take turns, one in each epoch;
            null draws anew in every step.
        remember: whether outputs of frozen parts are computed once for each row and kept, where that is exact.
        precision: number format of the products; auto decides by the size of the model and the device.
        checkpoint_seconds: longest time between two checkpoints, above 0; each epoch also ends with one.

    Raises:
        ValidationError: of pydantic, with all problems; `fit` and `load_recipe` report them as errors of moebius.

    Example:
        >>> settings = Settings.model_validate({"epochs": 4, "optimizer": {"kind": "sgd", "momentum": 0.9}})
        >>> settings
        Settings(epochs=4, optimizer=OptimizerChoice(kind='sgd', momentum=0.9))
        >>> settings.lr(0.5)
        0.001
    """

    epochs: AtLeastOne = 20
    batch_size: AtLeastOne = 128
    accumulate: AtLeastOne = 1
    optimizer: Annotated[OptimizerChoice, place_of("optimizer")] = OptimizerChoice()
    gate: Part = Part()
    experts: Part = Part()
    losses: GateLosses = ()
    cross_entropy: Rate = Field(default=1.0, validate_default=True)
    router: dict[str, Amount] = Field(default={})
    clip_norm: float | None = Field(default=None, gt=0)
    l2: L2 | None = None
    watch: Watch | None = None
    augment: Annotated[tuple[Augmentation, ...], Field(strict=False)] = ()
    views: AtLeastOne | None = None
    remember: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_seconds: float = Field(default=30.0, gt=0)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Problems of fields that do not fit each other."""
        problems = []
        if values.get("views") is not None and not values.get("augment"):
            rule, fix = "is a number of augmented copies, and nothing augments", "augment: [{kind: flip}]"
            problems.append(Problem(("views",), rule, values["views"], fix))
        parts = [values.get(name) for name in ("gate", "experts")]
        if all(isinstance(part, Mapping | Part) and dict(part).get("freeze") is True for part in parts):
            rule = "leaves nothing to train, the experts are frozen too"
            problems.append(Problem(("gate", "freeze"), rule, True))
        return problems

    @property
    def lr(self) -> Described | None:
        """Learning rate over epochs; None for the rates that the optimizer's groups have when it is built."""
        return self.optimizer.lr


class TrainingKeywords(TypedDict, total=False):
    """The fields of `Settings` as `mb.fit` takes them, and three short forms: `lr` is that of the optimizer, `patience`
    and `plateau` (epochs without a better one until rates are halved) those of `watch`.
    """

    epochs: int
    batch_size: int
    accumulate: int
    optimizer: OptimizerLike | OptimizerChoice
    lr: AmountLike | None
    gate: Mapping[str, Any] | Part
    experts: Mapping[str, Any] | Part
    losses: Sequence[LossLike]
    cross_entropy: AmountLike
    router: Mapping[str, AmountLike]
    clip_norm: float | int | None
    l2: Mapping[str, Any] | L2 | None
    watch: Mapping[str, Any] | Watch | None
    patience: int | None
    plateau: int | None
    augment: Sequence[Callable[[Tensor], Tensor] | Mapping[str, Any]]
    views: int | None
    remember: bool
    precision: Literal["auto", "fp32", "bf16"]
    checkpoint_seconds: float | int
