"""Feed-forward experts on a GPU, with gather and scatter inside the matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing, Selection
from moebius.execution import _triton
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, ffn_weights
from moebius.execution._pool import Pool
from moebius.execution.stacked import all_outputs


class Fused(Execution):
    """Run stacked feed-forward experts by Triton kernels that gather rows and scatter results themselves.

    Indices are padded to tiles, tensors are not; activation and router weight are applied in the kernels, and the
    backward pass keeps no copy of gathered rows. Where a mixture adds up weighted outputs no assignment's own output is
    ever written; other ways to combine get them, from rows that are gathered for them.

    Example:
        >>> import moebius as mb
        >>> layer = mb.layers.SparseFFN(dim=8, hidden=16, experts=4, execution="fused")  # for a GPU
        >>> layer.execution
        'fused'

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation; Guo et al. 2025, SonicMoE.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, all but stacks of `experts.FFN` on a GPU, with Triton."""
        if routing.selection is None:
            return None
        why = ffn_obstacle(pool, x)
        if why is not None:
            return why
        weights = ffn_weights(pool, x)
        return _triton.obstacle(x.to(weights.dtype), *weights.cast())

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        selection = routing.selection
        if selection is None:
            return all_outputs(pool, x)
        one_each = torch.arange(len(selection.row_A), device=x.device)
        plain = Selection(one_each, selection.expert_A, torch.ones_like(selection.weight_A), selection.kept_A)
        return _run(pool, x[selection.row_A].flatten(1), plain)

    def sum(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row: the whole of it inside the kernels."""
        selection = routing.selection
        assert selection is not None
        return _run(pool, x.flatten(1), selection)


def _run(pool: Pool, x: Tensor, selection: Selection) -> Tensor:
    weights = ffn_weights(pool, x)
    return _triton.fused_ffn(x.to(weights.dtype), *weights.cast(), weights.activation, selection)
