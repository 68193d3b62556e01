"""The execution of feed-forward experts on a GPU with gather and scatter inside the matrix products."""

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

    Indices are padded to tiles, tensors are not; the kernels apply activation and router weight, and the backward pass
    keeps no copy of gathered rows. Where the combine is a weighted sum the outputs of single assignments are never
    written; for other combines they are, from rows gathered beforehand.

    Example:
        >>> import moebius as mb
        >>> layer = mb.layers.SparseFFN(dim=8, hidden=16, experts=4, execution="fused")  # for a GPU
        >>> layer.execution
        'fused'

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation; Guo et al. 2025, SonicMoE.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, everything but stacks of `experts.FFN` on a GPU, with Triton installed."""
        if routing.selection is None:
            return None
        reason = ffn_obstacle(pool, x)
        if reason is not None:
            return reason
        weights = ffn_weights(pool, x)
        return _triton.obstacle(x.to(weights.dtype), *weights.cast())

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        selection = routing.selection
        if selection is None:
            return all_outputs(pool, x)
        # As if each assignment had a row of its own, with weight 1: the sum over its assignments is then its output.
        row_A = torch.arange(len(selection.row_A), device=x.device)
        separate = Selection(row_A, selection.expert_A, torch.ones_like(selection.weight_A), selection.kept_A)
        return _weighted_sum(pool, x[selection.row_A].flatten(1), separate)

    def sum(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row, computed inside the kernels."""
        selection = routing.selection
        assert selection is not None
        return _weighted_sum(pool, x.flatten(1), selection)


def _weighted_sum(pool: Pool, x: Tensor, selection: Selection) -> Tensor:
    weights = ffn_weights(pool, x)
    return _triton.fused_ffn(x.to(weights.dtype), *weights.cast(), weights.activation, selection)
