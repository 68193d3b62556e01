"""Normalisations of scores: a distribution over the experts, or an activation of each score."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.core.safe_log import safe_log
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
    """`name`, if it is the name of a normalisation.

    Raises:
        ArgumentError: it is not; the fix names similar ones.
    """
    if name not in NORMALISATIONS:
        fix = did_you_mean(name, NORMALISATIONS)
        raise ArgumentError("normalisation", f"needs one of {', '.join(NORMALISATIONS)}", name, fix)
    return name


def normalise(scores: Float[Tensor, "T E"], name: str) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]]:
    """The gate's activations and their logarithms, in float32 at least.

    softmax gives a distribution; sigmoid, relu, elu and none treat every expert by itself. Where an activation is not
    positive its logarithm is −∞, with a gradient of zero.

    Arguments:
        scores: T rows of E experts.
        name: one of `NORMALISATIONS`.
    """
    scores = at_least_float32(scores)
    if name == "softmax":
        log_probs = scores.log_softmax(-1)
        return log_probs.exp(), log_probs
    if name == "sigmoid":
        # F.logsigmoid would not do: compilers refuse its gradient for an unknown number of rows.
        return scores.sigmoid(), -F.softplus(-scores, threshold=50)
    probs = ACTIVATIONS[name](scores)
    return probs, safe_log(probs)
