"""The keys of a recipe's `training`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from moebius.lab.recipe.schema.base import Amount, AtLeastOne, Keywords, Rate, Strict, place_of


class OptimizerSpec(Keywords):
    """An optimizer of torch, with the keywords of its class.

    Arguments:
        kind: name of the optimizer.
        lr: learning rate, at least 0.
    """

    kind: str = "adam"
    lr: Rate = 1e-3


class GroupSpec(Strict):
    """What applies to the parameters of the gates, or of the experts, alone.

    Arguments:
        lr: their learning rate, at least 0; null for the optimizer's.
        freeze: whether they stay as they are.
        start_epoch: they train from this epoch on, counted from 0; fractions are allowed.
        period: they train in every period-th epoch.
        phase: the first of these epochs, from 0: gate and experts with different phases take turns.
    """

    lr: Annotated[Any, place_of("rate-or-null")] = None
    freeze: bool = False
    start_epoch: float = Field(default=0.0, ge=0)
    period: AtLeastOne = 1
    phase: int = Field(default=0, ge=0)


class LossSpec(Keywords):
    """A gate loss: a function of room `losses`, its weight and its keywords.

    Arguments:
        kind: a kind of room losses.
        weight: factor of this loss in the objective.
    """

    kind: str
    weight: Amount = 1.0


class PlateauSpec(Strict):
    """Learning rates that fall when the held-out rows show no progress.

    Arguments:
        patience: the rates fall after this many epochs without a better one, and again after as many more.
        factor: what the rates are multiplied with, between 0 and 1.
        least: no rate falls below this, at least 0.
    """

    patience: AtLeastOne
    factor: float = Field(default=0.5, gt=0, lt=1)
    least: float = Field(default=0.0, ge=0)


class WatchSpec(Strict):
    """What the held-out rows decide at the end of each epoch: the weights of the best epoch are kept.

    Arguments:
        measure: what makes an epoch better, accuracy or loss.
        patience: training ends after this many epochs without a better one; null trains all epochs.
        plateau: how learning rates fall without progress; null to leave them.
        above: only an epoch with a measure above this counts as the best; null for any.
        restart: whether every epoch begins from the best weights so far; the optimizer's state stays as it is.
    """

    measure: Literal["accuracy", "loss"] = "accuracy"
    patience: AtLeastOne | None = None
    plateau: PlateauSpec | None = None
    above: float | None = None
    restart: bool = False


class L2Spec(Strict):
    """A penalty on the squares of kernels: weight · Σ w² is a term of the loss.

    Arguments:
        weight: factor of the sum, at least 0.
        layers: all layers that have kernels (dense and convolutional), or convolutions only.
    """

    weight: float = Field(ge=0)
    layers: Literal["all", "convolutions"] = "all"


class TrainingSpec(Strict):
    """How every variant is trained, unless the variant has a `training` of its own.

    Arguments:
        epochs: number of passes over the training rows, at least 1.
        batch_size: rows in a step, at least 1.
        optimizer: what updates the parameters.
        gate: what applies to the gates and routers alone.
        experts: what applies to the experts alone.
        losses: gate losses, added to the cross-entropy.
        cross_entropy: factor of the cross-entropy of the mixture's output, at least 0.
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
    """

    epochs: AtLeastOne = 20
    batch_size: AtLeastOne = 128
    optimizer: Annotated[OptimizerSpec, place_of("optimizer")] = OptimizerSpec()
    gate: GroupSpec = GroupSpec()
    experts: GroupSpec = GroupSpec()
    losses: list[Annotated[LossSpec, place_of("loss")]] = Field(default=[])
    cross_entropy: Rate = 1.0
    router: dict[str, Amount] = Field(default={})
    clip_norm: float | None = Field(default=None, gt=0)
    l2: L2Spec | None = None
    watch: WatchSpec | None = None
    augment: list[Annotated[dict[str, Any], place_of("augmentation")]] = Field(default=[])
    views: AtLeastOne | None = None
    remember: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_seconds: float = Field(default=30.0, gt=0)
