"""Activations of experts' outputs before they are mixed: none, or softmax."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean

ACTIVATIONS = ("none", "softmax")


def activation_named(name: str) -> str:
    """`name`, if it is the name of an activation of outputs.

    Raises:
        ArgumentError: it is not; the fix names similar ones.
    """
    if name not in ACTIVATIONS:
        rule = f"needs one of {', '.join(ACTIVATIONS)}"
        raise ArgumentError("activation", rule, name, did_you_mean(name, ACTIVATIONS))
    return name


def activate_outputs(values: Float[Tensor, "..."], routing: Routing, name: str) -> Float[Tensor, "..."]:
    """The outputs, or their softmax over the last axis in float32 at least.

    Raises:
        ArgumentError: a softmax of outputs without an axis of classes.
    """
    if name == "none":
        return values
    if values.ndim < (3 if routing.selection is None else 2):
        rule = "softmax needs outputs with an axis of classes, and these are single numbers"
        raise ArgumentError("activation", rule, name, "activation: none")
    return at_least_float32(values).softmax(-1)
