"""Checks of targets: what they are, and whether they fit a model's outputs."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from moebius.kit.errors import ArgumentError


def class_indices(name: str, target: Any) -> Int[Tensor, "T ..."]:
    """Targets as whole numbers.

    Raises:
        ArgumentError: they are none; the fix for numbers with a fraction is a task for numbers, not a conversion.
    """
    if not isinstance(target, Tensor):
        raise ArgumentError(name, "needs targets as a tensor of whole numbers", type(target).__name__, "(x, labels)")
    if target.is_floating_point():
        rule = "needs whole numbers as targets of classes, and these are floating-point numbers"
        if target.numel() and bool((target == target.round()).all()):
            raise ArgumentError(name, rule, target.dtype, "(x, labels.long())    # no label has a fraction")
        raise ArgumentError(name, rule, target.dtype, 'task="regression"    # for targets that are quantities')
    return target.long()


def check_classes(name: str, target: Int[Tensor, "T ..."], classes: int) -> None:
    """Whether labels are from 0 to below the number of classes.

    Raises:
        ArgumentError: one is not, or there is no axis of rows alone.
    """
    if target.ndim != 1:
        rule = "needs one label for each row"
        raise ArgumentError(name, rule, tuple(target.shape), 'task="tokens"    # for a label at each position')
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
        wrong = int(target.min()) if int(target.min()) < 0 else int(target.max())
        fix = "labels that count the outputs, or experts with an output more"
        raise ArgumentError(name, f"needs labels 0 … {classes - 1}, for the model has so many outputs", wrong, fix)


def quantities(name: str, target: Any, missing: bool = False) -> Float[Tensor, "T ..."]:
    """Targets as floating-point numbers, which are finite.

    Arguments:
        name: of the argument, for the error.
        target: the targets.
        missing: whether NaN stands for a target that a row lacks.

    Raises:
        ArgumentError: they are no numbers, or not finite.
    """
    if not isinstance(target, Tensor):
        raise ArgumentError(name, "needs targets as a tensor of numbers", type(target).__name__, "(x, targets)")
    values = target if target.is_floating_point() else target.float()
    bad = values.isinf() if missing else ~values.isfinite()
    if bool(bad.any()):
        row = int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])
        keep = "keep = targets.isfinite()" if values.ndim == 1 else "keep = targets.isfinite().all(1)"
        raise ArgumentError(name, f"needs finite targets, and row {row} has none", values[row].tolist(), keep)
    return values


def align(output: Tensor, target: Tensor) -> Tensor:
    """An output (T, 1) for targets (T,) as (T,); any other as it is."""
    return output.squeeze(-1) if output.ndim == target.ndim + 1 and output.shape[-1] == 1 else output


def check_shape(output: Any, target: Tensor, per_target: int = 1) -> None:
    """Whether outputs have `per_target` numbers for each number of a target.

    Raises:
        ArgumentError: they do not.
    """
    width = target[:1].numel() if len(target) else 1
    if not isinstance(output, Tensor) or output[:1].numel() != per_target * width:
        numbers = "one number" if per_target * width == 1 else f"{per_target * width} numbers"
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        fix = f"nn.Sequential(model, nn.Linear(features, {per_target * width}))"
        raise ArgumentError("model", f"must give {numbers} for each row, as its targets want", shape, fix)
