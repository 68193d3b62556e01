"""The probability that a distribution over classes gives to the classes of each expert."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.errors import ArgumentError

ExpertClasses = Sequence[Sequence[int] | None]


def check_expert_classes(expert_classes: ExpertClasses) -> tuple[tuple[int, ...] | None, ...]:
    """The classes of each expert as tuples.

    Raises:
        ArgumentError: there is no expert, or an expert's classes are none, repeat or are below 0.
    """
    fix = "expert_classes=[[0, 8], [1, 9]]"
    if not expert_classes:
        raise ArgumentError("expert_classes", "needs the classes of at least one expert", list(expert_classes), fix)
    for classes in expert_classes:
        if classes is not None and (not classes or len(set(classes)) < len(classes) or min(classes) < 0):
            raise ArgumentError("expert_classes", "needs positions of classes that differ", list(classes), fix)
    return tuple(None if classes is None else tuple(classes) for classes in expert_classes)


def log_mass(
    log_probs: Float[Tensor, "T C"], classes: Sequence[int] | None, argument: str = "expert_classes"
) -> Float[Tensor, " T"]:
    """log Σ_c p_c over some classes; 0 for None, all classes.

    Raises:
        ArgumentError: a class that the distribution does not have.
    """
    if classes is None:
        return log_probs.new_zeros(len(log_probs))
    if max(classes) >= log_probs.shape[-1]:
        rule = f"needs positions below {log_probs.shape[-1]}, the number of outputs"
        raise ArgumentError(argument, rule, list(classes), f"classes 0 to {log_probs.shape[-1] - 1}")
    return log_probs[:, torch.tensor(classes, device=log_probs.device)].logsumexp(-1)
