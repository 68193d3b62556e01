"""Feed-forward experts on a GPU, with gather and scatter inside the matrix products."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.errors import ArgumentError
from moebius.execution import _triton
from moebius.execution._every import every
from moebius.execution._sum import sums_by
from moebius.execution._weights import ffn_weights, why_not_ffn
from moebius.routing import Routing, Selection
from moebius.stack import Stack

Experts = Sequence[nn.Module] | nn.ModuleList | Stack


def weighted_sum(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "T ..."]:
    """Σ_a weight_a · expert_a(x_a) over the assignments a of each row: the whole of it inside the kernels."""
    selection = routing.selection
    assert selection is not None
    return _run(experts, x.flatten(1), selection)


@sums_by(weighted_sum)
def fused(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "..."]:
    """Run stacked feed-forward experts by Triton kernels that gather rows and scatter results themselves.

    Indices are padded to tiles, tensors are not; activation and router weight are applied in the kernels, and the
    backward pass keeps no copy of gathered rows. Where a mixture adds up weighted outputs no assignment's own output is
    ever written; other ways to combine get them, from rows that are gathered for them.

    Arguments, Returns: as of `loop`; experts are a `Stack` of `experts.FFN` on a GPU.

    Raises:
        ArgumentError: the experts are something else, Triton is missing, or the rows are on no GPU.

    Reference: Tan, Shen, Panda, Courville 2024, Scattered Mixture-of-Experts Implementation; Guo et al. 2025, SonicMoE.
    """
    selection = routing.selection
    if selection is None:
        return every(experts, x, routing)
    one_each = torch.arange(len(selection.row_A), device=x.device)
    plain = Selection(one_each, selection.expert_A, torch.ones_like(selection.weight_A), selection.kept_A)
    return _run(experts, x[selection.row_A].flatten(1), plain)


def why_not_fused(experts: Experts, x: Tensor) -> str | None:
    """Why these experts cannot be run so on these rows, as the end of a sentence; else None."""
    why = why_not_ffn(experts, x)
    if why is not None:
        return why
    weights = ffn_weights(experts, x)
    return _triton.why_not(x.to(weights.dtype), *weights.cast())


def _run(experts: Experts, x: Tensor, selection: Selection) -> Tensor:
    why = why_not_ffn(experts, x)
    if why is not None:
        raise ArgumentError("execution", f"fused {why}", "fused", 'execution="auto"')
    weights = ffn_weights(experts, x)
    return _triton.fused_ffn(x.to(weights.dtype), *weights.cast(), weights.activation, selection)
