"""What just some routers know, for the losses that need it."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError


def aux_value(routing: Routing, name: str, fix: str) -> Float[Tensor, "T ..."]:
    """`routing.aux[name]`.

    Raises:
        ArgumentError: this router does not give it.
    """
    if name not in routing.aux:
        raise ArgumentError("routing.aux", f"needs {name!r}, which this router does not give", sorted(routing.aux), fix)
    return routing.aux[name]
