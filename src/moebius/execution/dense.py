"""All experts on all rows, of which the routing's choice is taken: no shape depends on the data."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.execution._every import every
from moebius.routing import Routing
from moebius.stack import Stack


def dense(
    experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Run every expert on every row, and take what the router chose.

    It costs E / k times what the chosen experts cost, and knows no branch: this is what exports to ONNX, what any
    module compiles in, and the fastest where experts are few and so small that moving rows costs more than they do.

    Arguments, Returns: as of `loop`.

    Reference: ours.
    """
    outputs = every(experts, x, _for_all(routing))
    return outputs if routing.selection is None else routing.selection.of(outputs)


def _for_all(routing: Routing) -> Routing:
    return Routing(routing.scores, routing.probs, routing.weights, routing.log_weights)
