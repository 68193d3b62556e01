"""Reads values of `Routing.aux`, which only some routers and gates give."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError


def aux_value(routing: Routing, name: str, fix: str, giver: str = "router") -> Float[Tensor, "T ..."]:
    """`routing.aux[name]`.

    Arguments:
        routing: of one call of a mixture.
        name: the key.
        fix: a line of a recipe that names a component that gives it.
        giver: "router" or "gate": which kind of component gives it.

    Raises:
        ArgumentError: `aux` has no such key.
    """
    if name not in routing.aux:
        rule = f"needs {name!r}, which this {giver} did not give in this call"
        raise ArgumentError("routing.aux", rule, sorted(routing.aux), fix)
    return routing.aux[name]
