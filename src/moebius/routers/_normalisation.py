"""From what a gate says to what its experts weigh: a distribution, or an activation of each score by itself."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "elu": F.elu,
    "none": lambda scores: scores,
}
NORMALISATIONS = ("softmax", *ACTIVATIONS)


def normalisation_named(name: str) -> str:
    """`name` if there is such a normalisation.

    Raises:
        ArgumentError: there is not.
    """
    if name not in NORMALISATIONS:
        fix = did_you_mean(name, NORMALISATIONS)
        raise ArgumentError("normalisation", f"needs one of {', '.join(NORMALISATIONS)}", name, fix)
    return name


def normalise(scores: Float[Tensor, "T E"], name: str) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]]:
    """The gate's activations and their logarithms, in float32 at least.

    softmax gives a distribution; sigmoid, relu, elu and none treat every expert by itself. The logarithm is −∞, with a
    gradient of zero, where an activation is not positive.
    """
    scores = at_least_float32(scores)
    if name == "softmax":
        log_probs = scores.log_softmax(-1)
        return log_probs.exp(), log_probs
    if name == "sigmoid":
        # Not F.logsigmoid, whose gradient compilers refuse for a number of rows that they do not know.
        return scores.sigmoid(), -F.softplus(-scores, threshold=50)
    probs = ACTIVATIONS[name](scores)
    return probs, safe_log(probs)


def safe_log(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log w where w > 0, else −∞ with a gradient of zero: the logarithm's own would be NaN there."""
    there = weights > 0
    return torch.where(there, torch.where(there, weights, 1).log(), -torch.inf)


def at_least_float32(scores: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The scores in float32 at least: a bf16 softmax has two digits."""
    return scores.float() if scores.itemsize < 4 else scores
