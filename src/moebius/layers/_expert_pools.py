"""Running a pool of experts once for several gates: each expert on the rows that some gate selected."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from moebius.core.processes import is_distributed
from moebius.core.routing import Routing, Selection
from moebius.core.stack import Stack
from moebius.core.transforms import transform_active
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution._running import check_not_sharded
from moebius.execution.auto import decide


@dataclass(frozen=True)
class PoolOutputs:
    """What a pool's n experts computed for R rows.

    Arguments:
        values: (R, n, …) where every expert ran on every row, else one output for each pair of row and expert that a
            gate selected, (A, …).
        count: n.
        places: index in `values` of each pair row·n + expert; None where `values` has all pairs in this order.
        is_complete: whether every expert ran on every row.
    """

    values: Float[Tensor, "..."]
    count: int
    places: Int[Tensor, " pairs"] | None
    is_complete: bool

    @property
    def flat(self) -> Float[Tensor, "A ..."]:
        """The outputs with one axis of pairs."""
        return self.values.flatten(0, 1) if self.is_complete else self.values

    def locate(self, row_A: Int[Tensor, " A"], expert_A: Int[Tensor, " A"]) -> Int[Tensor, " A"]:
        """The index in `flat` of each pair; for a pair that no gate selected, that of any other."""
        pair_A = row_A * self.count + expert_A
        return pair_A if self.places is None else self.places[pair_A]


def run_pool(
    experts: nn.Module, execution: Execution, x: Shaped[Tensor, "R ..."], demands: Sequence[Selection | None]
) -> PoolOutputs:
    """Run each expert of a pool once, on the union of the rows that several gates selected for it.

    Arguments:
        experts: a `ModuleList`, a stack, or a wrapper around one.
        execution: how the experts run.
        x: the rows.
        demands: each gate's selection of these rows and experts; None where a gate needs every expert for every row.
    """
    count = len(find_pool(experts))
    complete = any(demand is None for demand in demands)
    selection, places = (None, None) if complete else _unite([d for d in demands if d is not None], x, count)
    run = _PoolRun(execution, selection)
    # A stack is called like any module, so that its wrappers and hooks act.
    values = experts(x, run) if is_callable_pool(experts) else run(experts, x)
    return PoolOutputs(values, count, None if run.is_complete else places, run.is_complete)


class _PoolRun:
    """One run of a pool's experts.

    Attributes:
        is_complete: whether every expert ran on every row.
    """

    def __init__(self, execution: Execution, selection: Selection | None):
        self.execution, self.selection, self.is_complete = execution, selection, selection is None

    def __call__(self, experts: Any, x: Tensor) -> Tensor:
        pool = Pool(experts)
        # Executions read the selection alone.
        unused = torch.zeros(x.shape[0], len(pool), device=x.device)
        routing = Routing(unused, unused, unused, unused, self.selection)
        if self.selection is not None and is_distributed():
            check_not_sharded(pool)
        execution, _ = decide(self.execution, pool, routing, x)
        if execution.everyone:
            routing, self.is_complete = replace(routing, selection=None), True
        return execution.run(pool, routing, x)


def _unite(demands: Sequence[Selection], x: Tensor, count: int) -> tuple[Selection, Tensor | None]:
    """Each pair of row and expert that a selection keeps, once; and the place of each pair among them."""
    rows, pairs = x.shape[0], x.shape[0] * count
    pair_A = torch.cat([demand.row_A * count + demand.expert_A for demand in demands])
    kept_A = torch.cat([demand.kept_A for demand in demands])
    used = torch.zeros(pairs, dtype=torch.long, device=x.device).index_add(0, pair_A, kept_A.long()) > 0
    all_pairs = torch.arange(pairs, device=x.device)
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or transform_active() or x.is_meta:
        # No shape may depend on values.
        used_pairs, kept, places = all_pairs, used, None
    else:
        used_pairs = used.nonzero().squeeze(1)
        kept = torch.ones_like(used_pairs, dtype=torch.bool)
        if rows and not used_pairs.shape[0]:
            # A pair that does not run: the shape of an output is needed, and gradients of zero.
            used_pairs, kept = all_pairs[:1], used[:1]
        places = torch.zeros_like(all_pairs).index_copy(
            0, used_pairs, torch.arange(used_pairs.shape[0], device=x.device)
        )
    weights = torch.ones(used_pairs.shape[0], device=x.device)
    return Selection(used_pairs // count, used_pairs % count, weights, kept), places


def drop_selection(outputs: Float[Tensor, "T E ..."], routing: Routing) -> tuple[Tensor, Routing]:
    """Every expert's output, 0 where the expert was not selected, and the routing without its selection.

    With all outputs combine needs no selection, because weights are 0 where an expert was not selected. Compilers and
    exported graphs handle T rows and E experts more simply than assignments.
    """
    if routing.selection is None:
        return outputs, routing
    weights = routing.weights if routing.head_weights is None else routing.head_weights.abs().sum((1, 3))
    # The outputs are set to 0 as well: a weight of 0 times an infinite output would be NaN.
    selected = (weights != 0).view(*weights.shape, *[1] * (outputs.ndim - 2))
    return torch.where(selected, outputs, 0), replace(routing, selection=None)


def is_callable_pool(experts: nn.Module) -> bool:
    """Whether the experts are called as one module: a stack, or a wrapper around one."""
    return not isinstance(experts, nn.ModuleList)


def find_pool(experts: nn.Module) -> nn.ModuleList | Stack:
    """The list or the stack of experts, which may be inside a wrapper."""
    pools = (part for part in experts.modules() if isinstance(part, Stack | nn.ModuleList))
    return experts if isinstance(experts, Stack | nn.ModuleList) else next(pools)
