"""The execution that pads the rows of several experts to a common number, for one batched product."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, run_ffn
from moebius.execution._pool import Pool
from moebius.execution.stacked import all_outputs


class Padded(Execution):
    """Sort the assignments by expert, and run consecutive experts as batched products of as many rows each.

    It takes stacks of `experts.FFN`. A batch is halved until at most a quarter of it is padding, or 16 rows an expert,
    so that one expert with many rows costs no padding. Numbers of rows are rounded up to multiples of 16: for bf16 the
    processor's library compiles a kernel for every shape that it meets and keeps 1,024 of them, and with each expert's
    own number of rows, which changes in every step, it would spend much of the step compiling.

    Example:
        >>> import torch
        >>> import moebius as mb
        >>> experts = Pool(mb.Stack([mb.experts.FFN(4, 3), mb.experts.FFN(4, 3)]))
        >>> Padded().run(experts, mb.routers.TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 4])

    Reference: ours; Lepikhin et al. 2020, GShard, section 3.2 for batched experts, there with a fixed capacity.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, everything but stacks of feed-forward experts on rows that are vectors."""
        return None if routing.selection is None else ffn_obstacle(pool, x)

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        if routing.selection is None:
            return all_outputs(pool, x)
        return run_ffn(pool, x, routing.selection, None, padded=True)

    def sum(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row."""
        assert routing.selection is not None
        return run_ffn(pool, x, routing.selection, routing.selection.weight_A, padded=True)
