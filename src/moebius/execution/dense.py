"""The execution that runs all experts on all rows and then selects: no shape depends on the data."""

from jaxtyping import Float, Shaped
from torch import Tensor

from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution.stacked import all_outputs


class Dense(Execution):
    """Run every expert on every row, and select the outputs that the router chose.

    It costs E / k times as much as the chosen experts alone, and has no branch that depends on data. So it exports to
    ONNX, compiles for any expert and works under the transforms of torch.func; and it is the fastest where experts are
    few and so small that moving rows costs more than running them.

    Example:
        >>> import torch
        >>> from moebius.routers import TopK
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Dense().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours.
    """

    everyone = True

    def run(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        outputs = all_outputs(pool, x)
        return outputs if routing.selection is None else routing.selection.select_outputs(outputs)
