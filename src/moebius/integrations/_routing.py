"""Routings made of what other libraries' blocks compute."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing, Selection
from moebius.core.safe_log import safe_log
from moebius.routers._normalisation import ACTIVATIONS

# The name of one of our normalisations, or the block's own function of the scores.
Normalisation = str | Callable[[Tensor], Tensor]


def normalised(scores: Float[Tensor, "T E"], normalisation: Normalisation) -> Float[Tensor, "T E"]:
    """The gate's distribution or activations, in float32 at least."""
    scores = at_least_float32(scores)
    if normalisation == "softmax":
        return scores.softmax(-1)
    return (ACTIVATIONS[normalisation] if isinstance(normalisation, str) else normalisation)(scores)


def route_choice(
    scores: Float[Tensor, "... E"],
    expert_TK: Int[Tensor, "T K"],
    weight_TK: Float[Tensor, "T K"],
    normalisation: Normalisation,
    aux: Mapping[str, Tensor] | None = None,
) -> Routing:
    """The routing of rows that chose K experts each, with the weights that the block multiplies with.

    An assignment of weight 0 is not kept: blocks mark with it what they do not run.
    """
    scores = scores.flatten(0, -2)
    rows, k = expert_TK.shape
    expert_TK = expert_TK.long()
    row_A = torch.arange(rows, device=scores.device).repeat_interleave(k)
    weights = weight_TK.new_zeros(scores.shape).scatter_add(1, expert_TK, weight_TK)
    weight_A = weight_TK.flatten()
    selection = Selection(row_A, expert_TK.flatten(), weight_A, weight_A != 0)
    return make_routing(scores, weights, normalisation, selection, aux)


def make_routing(
    scores: Float[Tensor, "T E"],
    weights: Float[Tensor, "T E"],
    normalisation: Normalisation,
    selection: Selection | None = None,
    aux: Mapping[str, Tensor] | None = None,
) -> Routing:
    """The routing with these weights."""
    probs = normalised(scores, normalisation)
    is_distribution = normalisation == "softmax"
    return Routing(scores, probs, weights, safe_log(weights), selection, aux=aux or {}, distribution=is_distribution)
