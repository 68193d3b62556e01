"""The execution that picks one by a rule."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.execution._rowwise import why_not_rowwise
from moebius.execution._sum import summing, sums_by
from moebius.execution._weights import why_not_ffn
from moebius.execution.dense import dense
from moebius.execution.fused import fused, why_not_fused
from moebius.execution.gather import gather
from moebius.execution.grouped import grouped, why_not_grouped
from moebius.execution.loop import loop
from moebius.execution.sorted import sorted
from moebius.execution.stacked import groups, own_product, stacked, why_not
from moebius.routing import Routing
from moebius.stack import Stack

Experts = Sequence[nn.Module] | nn.ModuleList | Stack

_RUN = {
    "loop": loop,
    "stacked": stacked,
    "sorted": sorted,
    "grouped": grouped,
    "gather": gather,
    "dense": dense,
    "fused": fused,
}
# Up to so many assignments are few: kernels for many rows would mostly wait for the weights.
_FEW_ON_GPU, _FEW_ON_CPU = 16, 4
# Multiply-adds of a dense expert that take as long as calling it, on a CPU: from trials, see docs/execution.md.
_CALL = 2e6


class Choice(NamedTuple):
    """An execution's name and why it was picked, a sentence."""

    name: str
    reason: str


def weighted_sum(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "T ..."] | None:
    """The weighted sum, where the execution that was picked computes it by itself; else None."""
    own = summing(_RUN[choose(experts, x, routing).name], routing)
    return None if own is None else own(experts, x, routing)


@sums_by(weighted_sum)
def auto(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "..."]:
    """Run the experts in the way that `choose` names.

    Reference: ours. A rule and never a measurement, so that a resumed run computes the same bits.
    """
    return _RUN[choose(experts, x, routing).name](experts, x, routing)


def choose(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Choice:
    """The name of the execution for these experts, rows and routing, and the reason as a sentence.

    It goes by the kind of the experts, the numbers of rows and experts, the number format, the device, and whether a
    compiler is looking. `moe.chosen(x)` asks it for a mixture and rows.

    Example:
        >>> import moebius as mb
        >>> experts, x = [mb.experts.Linear(4, 3), torch.nn.Linear(4, 3)], torch.zeros(5, 4)
        >>> choose(experts, x, mb.routers.Soft()(torch.zeros(5, 2)))
        Choice(name='loop', reason='stacked needs equal experts: their classes differ')
        >>> choose(experts, x, mb.routers.TopK(1)(torch.zeros(5, 2)))
        Choice(name='sorted', reason='each expert runs on its rows, gathered once')
    """
    if len(experts) == 1 and not isinstance(experts, Stack):
        return Choice("loop", "there is one expert")
    if routing.selection is None:
        return _for_all_rows(experts, routing)
    if torch.compiler.is_exporting():
        return Choice("dense", "an exported graph has to hold every expert")
    if x.is_cuda:
        return _on_gpu(experts, x, len(routing.selection.row_A))
    return _on_cpu(experts, x, len(routing.selection.row_A))


def _on_cpu(experts: Experts, x: Tensor, assignments: int) -> Choice:
    compiling = torch.compiler.is_compiling()
    dense_layers = why_not_rowwise(experts, x) is None
    if dense_layers and assignments <= _FEW_ON_CPU and not compiling:
        return Choice("gather", f"{assignments} assignments are few: each reads its expert's weights")
    if why_not_ffn(experts, x) is None:
        return Choice("sorted", "feed-forward experts on a CPU have an operator for sorted rows")
    if compiling:
        return Choice("dense", "a compiler cannot follow experts that are called one by one")
    if dense_layers and isinstance(experts, Stack) and _tiny(experts, len(x) - assignments / len(experts)):
        return Choice("dense", "the experts are so small that running all takes less than calling the chosen ones")
    return Choice("sorted", "each expert runs on its rows, gathered once")


def _tiny(experts: Stack, unchosen: float) -> bool:
    """Whether an expert takes less for the rows that it was not chosen for than for being called."""
    return unchosen * sum(parameter[0].numel() for parameter in experts.parameters()) <= _CALL


def _for_all_rows(experts: Experts, routing: Routing) -> Choice:
    if not isinstance(experts, Stack):
        experts = list(experts)
        if all(own_product(expert) is None for expert in experts):
            kind = type(experts[0]).__name__
            return Choice("loop", f"{kind} has no product of its own for equal experts")
    why = why_not(experts, routing)
    if why is not None:
        return Choice("loop", f"stacked {why}")
    if not isinstance(experts, Stack) and len(groups(experts)) > 1:
        return Choice("stacked", "equal experts among unlike ones all run: one product for each kind")
    return Choice("stacked", "equal experts all run: one product")


def _on_gpu(experts: Experts, x: Tensor, assignments: int) -> Choice:
    if assignments <= _FEW_ON_GPU and why_not_rowwise(experts, x) is None:
        return Choice("gather", f"{assignments} assignments are few: each reads its expert's weights")
    why_fused = why_not_fused(experts, x)
    if why_fused is None:
        return Choice("fused", "feed-forward experts on a GPU have kernels of their own")
    if why_not_grouped(experts, x) is None:
        return Choice("grouped", f"dense layers in bf16 on a GPU; fused {why_fused}")
    if torch.compiler.is_compiling():
        return Choice("dense", "a compiler cannot follow experts that are called one by one")
    return Choice("sorted", f"each expert runs on its rows, gathered once; fused {why_fused}")
