"""All experts on all rows, of which the routing's choice is taken: no shape depends on the data."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution.stacked import all_outputs


class Dense(Execution):
    """Run every expert on every row, and take what the router chose.

    It costs E / k times what the chosen experts cost, and knows no branch: this is what exports to ONNX, what any
    module compiles in, what transforms of torch.func go through, and the fastest where experts are few and so small
    that moving rows costs more than they do.

    Example:
        >>> import torch
        >>> from moebius.routers import TopK
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Dense().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours.
    """

    everyone = True

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or of what the router chose."""
        outputs = all_outputs(pool, x)
        return outputs if routing.selection is None else routing.selection.select_outputs(outputs)
