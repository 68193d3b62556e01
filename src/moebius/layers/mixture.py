"""`Mixture`: a gate, a router, experts and a way to combine them, as one ordinary module."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from inspect import isroutine
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.expert_outputs import reads_expert_outputs
from moebius.core.gate_call import ScoredRows, score_rows
from moebius.core.processes import is_distributed
from moebius.core.recording import is_recording_outputs, record_routing
from moebius.core.routing import Router, Routing
from moebius.core.row_context import row_context
from moebius.core.stack import Stack
from moebius.core.stack_state import accept_stack_state
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution._running import check_not_sharded, with_gate_gradients
from moebius.execution.auto import Choice, decide
from moebius.kit.errors import ArgumentError
from moebius.kit.html import html_table
from moebius.kit.registry import find, kinds
from moebius.layers._expert_pools import drop_selection, find_pool, is_callable_pool
from moebius.layers._output_reading import OutputReading
from moebius.layers._part_inputs import part_inputs
from moebius.routers.soft import Soft


class Mixture(nn.Module):
    """A mixture of experts: y = combine(w(x), experts(x)), w = router(gate(x)).

    The gate scores, the router selects, the execution moves rows to experts, each expert computes, combine merges.

    Arguments:
        gate: any module x → scores (…, E), or as many numbers for each row as the router needs. The axes that the gate
            keeps are the batch axes: a convolutional gate on images (T, channels, height, width) returns (T, E), so
            rows are images; a linear gate on (B, S, D) returns (B, S, E), so rows are tokens. A gate whose attribute
            `gives_aux` is true returns a pair: the scores, and a mapping of names to tensors with the same batch axes,
            for losses. The mapping becomes part of `Routing.aux`; the router's keys take precedence.
        experts: any modules, of equal or different classes, mixtures included. Each returns one tensor whose first axis
            is that of its rows, all of equal shapes (`mb.experts.Adapter(expert, output=…)` picks the tensor out of a
            tuple or a mapping). An `mb.Stack`, equal experts that share stacked parameters, stays one: sparse
            executions need it.
        router: scores (T, E) → Routing; by default `Soft`, every expert for every row.
        combine: (outputs, routing) → y; by default the weighted sum.
        execution: how experts run: a kind of room `execution`, or an `mb.Execution`. "auto" picks by a rule;
            `moe.chosen(x)` returns the choice and its reason.

    A gate or an expert whose `forward` has a parameter `context` receives the side information of its rows in it. A
    gate that names "expert_outputs" in its `context_keys` is called after all experts have run, and receives their
    outputs (T, E, C) there.

    Gate and experts may read different inputs of a row: `moe({"gate": meta, "experts": image})`. A mapping with other
    names gives the gate, and the experts, the input that their `forward` has a parameter of the name of.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: there are no experts; nothing tells which of several inputs is whose; the gate's scores are not
            one per row and expert, or its aux is not per row; an expert returns something else than one tensor with its
            rows, or another shape than the others.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 3))])
        >>> moe(torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts.
    """

    def __init__(
        self,
        gate: nn.Module,
        experts: Iterable[nn.Module] | Stack,
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
        execution: str | Execution = "auto",
    ):
        super().__init__()
        self.gate = gate
        self.experts = experts if isinstance(experts, Stack) else nn.ModuleList(experts)
        if not len(self.experts):
            fix = "mb.Mixture(gate, [expert, another])"
            raise ArgumentError("experts", "needs at least one expert", list(self.experts), fix)
        self.router = Soft() if router is None else router
        self.combine = WeightedSum() if combine is None else combine
        self.execution = resolve_execution(execution)
        self.register_load_state_dict_pre_hook(accept_stack_state)

    @property
    def count(self) -> int:
        """E, the number of experts."""
        return len(find_pool(self.experts))

    def _repr_html_(self) -> str:
        pool = find_pool(self.experts)
        kinds = Counter(type(expert) for expert in ([pool.template] * len(pool) if isinstance(pool, Stack) else pool))
        rows = [(name, _kind_name(getattr(self, name))) for name in ("gate", "router", "combine")]
        rows.append(("experts", ", ".join(f"{count} × {kind.__name__}" for kind, count in kinds.items())))
        rows.append(("execution", self.execution.name))
        rows.append(("parameters", f"{sum(parameter.numel() for parameter in self.parameters()):,}"))
        return html_table(type(self).__name__, ["part", "kind"], rows)

    def forward(
        self,
        x: Float[Tensor, "..."] | Mapping[str, Any],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Run the mixture.

        Arguments:
            x: rows, or those of the gate and those of the experts by name.
            context: side information for gates and experts whose forward takes a context: tensors with x's first axis;
                also `with mb.context(…)`.
            mask: True for real rows, with the batch axes; also `with mb.context(mask=…)`. Padding goes to no expert and
                counts in no capacity, loss, load or record; its outputs are 0. The gate receives the real rows with one
                batch axis.
        """
        rows, routing, outputs = self._route_rows(x, context, mask)
        with row_context(rows.context):
            # A stack is called like any module, so that its wrappers and hooks act.
            run = _ExpertRun(self, routing)
            y = self._run_pool(run, rows.x) if outputs is None else run.take_outputs(outputs)
            record_routing(self, run.routing)
            if run.combine_routing is not None:
                y = self.combine(y, run.combine_routing)
        return rows.restore_batch(with_gate_gradients(y, self.router, [self.gate], self.training))

    def chosen(
        self,
        x: Float[Tensor, "..."] | Mapping[str, Any],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Choice:
        """The name of the execution that runs these rows, and the reason. The gate and the router run, no expert does.

        Arguments:
            x, context, mask: as for a call of the mixture.

        Example:
            >>> import moebius as mb
            >>> moe = Mixture(mb.gates.Linear(4, 2), mb.Stack([mb.experts.Linear(4, 3) for _ in range(2)]))
            >>> moe.chosen(torch.zeros(5, 4))
            Choice(name='stacked', reason='equal experts all run: one product')
        """
        # The choice itself may depend on whether gradients are recorded.
        with torch.no_grad():
            rows, routing, _ = self._route_rows(x, context, mask)

        def choose(experts: Any, x: Tensor) -> Choice:
            execution, reason = decide(self.execution, Pool(experts), routing, x)
            return Choice(execution.name, reason)

        return self._run_pool(choose, rows.x)

    def _run_pool(self, function: Callable[[Any, Tensor], Any], x: Tensor) -> Any:
        """What a function of the pool of experts and their rows gives, inside the stack's own call where it is one."""
        return self.experts(x, function) if is_callable_pool(self.experts) else function(self.experts, x)

    def _route_rows(
        self, x: Tensor | Mapping[str, Any], context: Mapping[str, Tensor] | None, mask: Tensor | None
    ) -> tuple[ScoredRows, Routing, Tensor | None]:
        """The experts' rows, where they go, and all experts' outputs if the gate has read them."""
        gate_x, expert_x = part_inputs(self.gate, self.experts, x) if isinstance(x, Mapping) else (x, x)
        reading = OutputReading(self._run_all_experts) if reads_expert_outputs(self.gate) else None
        gate_x = gate_x if reading is None else expert_x
        experts = self.count
        width = self.router.gate_outputs(experts)
        rule = f"must give one score for each of the {experts} experts"
        if width != experts:
            rule = f"must give {width} numbers a row, which {type(self.router).__name__} needs for its experts"
        fix = f"gate=mb.gates.Linear(features, experts={width})"
        rows = score_rows(self.gate, gate_x, context, mask, width, rule, fix, reading)
        routing = rows.route(self.router, rows.scores)
        rows = rows if expert_x is gate_x else replace(rows, x=rows.take_rows(expert_x))
        return rows, routing, None if reading is None else reading.outputs

    def _run_all_experts(self, x: Tensor) -> Tensor:
        """Every expert's output for every row."""

        def run(experts: Any, x: Tensor) -> Tensor:
            pool = Pool(experts)
            routing = Soft()(torch.zeros(len(x), len(pool), device=x.device))
            execution, _ = decide(self.execution, pool, routing, x)
            return execution.run(pool, routing, x)

        return self._run_pool(run, x)


class _ExpertRun:
    """One run of a mixture's experts.

    Attributes:
        routing: the routing to record.
        combine_routing: the routing that combine reads; None where the run's result is combined already.
    """

    def __init__(self, moe: Mixture, routing: Routing):
        self.moe, self.routing = moe, routing
        self.combine_routing: Routing | None = routing

    def __call__(self, experts: Any, x: Tensor) -> Tensor:
        pool, routing = Pool(experts), self.routing
        if routing.selection is not None and is_distributed():
            check_not_sharded(pool)
        if is_recording_outputs(self.moe):
            return self._run_and_keep_outputs(pool, x)
        execution, _ = decide(self.moe.execution, pool, routing, x)
        if routing.selection is not None and execution.everyone:
            return self._run_every_expert(execution, pool, x)
        can_sum = routing.selection is not None and routing.head_weights is None and _is_plain_sum(self.moe.combine)
        y = execution.sum(pool, routing, x) if can_sum else None
        if y is None:
            return execution.run(pool, routing, x)
        self.combine_routing = None
        return y

    def take_outputs(self, outputs: Tensor) -> Tensor:
        """The outputs that the router selected, of all experts' outputs that are there already."""
        if is_recording_outputs(self.moe):
            self.routing = self.combine_routing = replace(self.routing, outputs=outputs)
        selection = self.routing.selection
        return outputs if selection is None else selection.select_outputs(outputs)

    def _run_every_expert(self, execution: Execution, pool: Pool, x: Tensor) -> Tensor:
        """Every expert's output for every row, 0 where the expert was not selected."""
        outputs = execution.run(pool, replace(self.routing, selection=None), x)
        values, self.combine_routing = drop_selection(outputs, self.routing)
        return values

    def _run_and_keep_outputs(self, pool: Pool, x: Tensor) -> Tensor:
        """Run every expert on every row, keep the outputs in the routing, and return those that the router selected."""
        dense_routing = replace(self.routing, selection=None)
        execution, _ = decide(self.moe.execution, pool, dense_routing, x)
        return self.take_outputs(execution.run(pool, dense_routing, x))


def resolve_execution(execution: str | Execution) -> Execution:
    """The execution with this name, or `execution` itself if it is one.

    Raises:
        ArgumentError: it is neither a name nor an execution.
    """
    if isinstance(execution, str):
        return find("execution", execution)()
    if not isinstance(execution, Execution):
        rule = f"needs one of {', '.join(kinds('execution'))}, or an mb.Execution"
        raise ArgumentError("execution", rule, execution, 'execution="auto"')
    return execution


@contextmanager
def executed_by(model: nn.Module, execution: Execution) -> Iterator[None]:
    """Inside the block all mixtures of the model run by this execution."""
    parts = [part for part in model.modules() if isinstance(vars(part).get("execution"), Execution)]
    before = [(part, vars(part)["execution"]) for part in parts]
    try:
        for part in parts:
            vars(part)["execution"] = execution
        yield
    finally:
        for part, previous in before:
            vars(part)["execution"] = previous


def execution_kind(execution: Execution) -> str | None:
    """The kind of an execution that the registry has; None for others."""
    name = execution.name
    return name if name in kinds("execution") and find("execution", name) is type(execution) else None


def _kind_name(part: Any) -> str:
    return part.__name__ if isroutine(part) else type(part).__name__


def _is_plain_sum(combine: Any) -> bool:
    """Whether combine is the weighted sum without an activation, which an execution may compute itself."""
    is_weighted_sum = isinstance(combine, WeightedSum) and type(combine).__call__ is WeightedSum.__call__
    return is_weighted_sum and combine.activation == "none"
