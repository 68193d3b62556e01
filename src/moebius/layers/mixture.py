"""`Mixture`: a gate, a router, experts and a way to combine them, as one ordinary module."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
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
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft


class Mixture(nn.Module):
    """A mixture of experts: y = combine(w(x), experts(x)), w = router(gate(x)).

    The gate scores, the router selects, the execution moves rows to experts, each expert computes, combine merges.

    Arguments:
        gate: any module x → scores (…, E), or as many numbers a row as the router wants. The batch axes are those it
            keeps: a convolutional gate on images (T, channels, height, width) gives (T, E), so rows are images; a
            linear gate on (B, S, D) gives (B, S, E), so rows are tokens. A gate whose attribute `gives_aux` is true
            gives a pair: scores, and by name what losses need of its rows, tensors whose first axes are those batch
            axes; they become part of `Routing.aux`, where the router's own keys win.
        experts: any modules, also unlike ones, also mixtures. Each gives one tensor whose first axis is that of its
            rows, all of equal shapes (`mb.experts.Adapter(expert, output=…)` picks it out of a tuple or a mapping). An
            `mb.Stack` is kept as it is: equal experts that share stacked parameters, which sparse executions want.
        router: scores (T, E) → Routing; every expert for every row unless given.
        combine: (outputs, routing) → y; the weighted sum unless given.
        execution: how experts run: a kind of room `execution`, or an `mb.Execution`. "auto" picks by a rule, and
            `moe.chosen(x)` says what and why.

    A gate or an expert whose `forward` has a parameter `context` is given the side information of its own rows there.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: no experts; a gate whose scores are not one per row and expert, or whose aux is not per row; an
            expert that gives something else than one tensor with its rows, or another shape than the others.

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
        """E, how many experts there are."""
        return len(_pool(self.experts))

    def forward(
        self,
        x: Float[Tensor, "..."],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Run the mixture.

        Arguments:
            x: rows.
            context: side information for gates and experts that want it, first axis that of x; also
                `with mb.context(…)`.
            mask: which rows are real, with the batch axes; also `with mb.context(mask=…)`. The others go to no expert
                and count in no capacity, loss, load or record; their outputs are 0. The gate sees the real rows one
                beneath another.
        """
        rows = self._asked(x, context, mask)
        routing = rows.route(self.router, rows.scores)
        with row_context(rows.context):
            # Through the experts' own call, where they have one: what wraps or hooks a stack acts there.
            run = _Run(self, routing)
            y = self.experts(rows.x, run) if _called(self.experts) else run(self.experts, rows.x)
            record_routing(self, run.routing)
            if run.seen is not None:
                y = self.combine(y, run.seen)
        return rows.restore_batch(with_gate_gradients(y, self.router, [self.gate], self.training))

    @torch.no_grad()
    def chosen(
        self,
        x: Float[Tensor, "..."],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Choice:
        """Which execution these rows run by, and why: a name and a sentence. Gate and router are asked, experts not.

        Example:
            >>> import moebius as mb
            >>> moe = Mixture(mb.gates.Linear(4, 2), mb.Stack([mb.experts.Linear(4, 3) for _ in range(2)]))
            >>> moe.chosen(torch.zeros(5, 4))
            Choice(name='stacked', reason='equal experts all run: one product')
        """
        rows = self._asked(x, context, mask)
        routing = rows.route(self.router, rows.scores)

        def choice(experts: Any, x: Tensor) -> Choice:
            execution, reason = decide(self.execution, Pool(experts), routing, x)
            return Choice(execution.name, reason)

        return self.experts(rows.x, choice) if _called(self.experts) else choice(self.experts, rows.x)

    def _asked(self, x: Tensor, context: Mapping[str, Tensor] | None, mask: Tensor | None) -> ScoredRows:
        experts = self.count
        wanted = self.router.gate_outputs(experts)
        rule = f"must give one score for each of the {experts} experts"
        if wanted != experts:
            rule = f"must give {wanted} numbers a row, which {type(self.router).__name__} needs for its experts"
        return score_rows(self.gate, x, context, mask, wanted, rule, f"a gate with experts={wanted}")


class _Run:
    """One run of a mixture's experts.

    Attributes:
        routing: for the record.
        seen: what combine is to see beside the outputs; None where the result is combined already.
    """

    def __init__(self, moe: Mixture, routing: Routing):
        self.moe, self.routing = moe, routing
        self.seen: Routing | None = routing

    def __call__(self, experts: Any, x: Tensor) -> Tensor:
        pool, routing = Pool(experts), self.routing
        if routing.selection is not None and is_distributed():
            check_not_sharded(pool)
        if is_recording_outputs(self.moe):
            return self._with_outputs(pool, x)
        execution, _ = decide(self.moe.execution, pool, routing, x)
        if routing.selection is not None and execution.everyone:
            return self._unchosen_zero(execution, pool, x)
        plain = routing.selection is not None and routing.head_weights is None and _plain_sum(self.moe.combine)
        y = execution.sum(pool, routing, x) if plain else None
        if y is None:
            return execution.run(pool, routing, x)
        self.seen = None
        return y

    def _unchosen_zero(self, execution: Execution, pool: Pool, x: Tensor) -> Tensor:
        """Every expert's output for every row, 0 where it was not chosen.

        Of all outputs combine needs no selection, since weights are 0 where an expert was not chosen; and of T rows and
        E experts compilers and exported graphs make less than of assignments.
        """
        routing = self.routing
        self.seen = replace(routing, selection=None)
        outputs = execution.run(pool, self.seen, x)
        weights = routing.weights if routing.head_weights is None else routing.head_weights.abs().sum((1, 3))
        # Not only a weight of 0: that times an infinite output would be NaN.
        chosen = (weights != 0).view(*weights.shape, *[1] * (outputs.ndim - 2))
        return torch.where(chosen, outputs, 0)

    def _with_outputs(self, pool: Pool, x: Tensor) -> Tensor:
        """What the router chose of every expert's outputs, which are kept in the routing."""
        whole = replace(self.routing, selection=None)
        execution, _ = decide(self.moe.execution, pool, whole, x)
        outputs = execution.run(pool, whole, x)
        self.routing = self.seen = replace(self.routing, outputs=outputs)
        selection = self.routing.selection
        return outputs if selection is None else selection.select_outputs(outputs)


def resolve_execution(execution: str | Execution) -> Execution:
    """The execution of this name, or this one.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(execution, str):
        return find("execution", execution)()
    if not isinstance(execution, Execution):
        rule = f"needs one of {', '.join(kinds('execution'))}, or an mb.Execution"
        raise ArgumentError("execution", rule, execution, 'execution="auto"')
    return execution


def execution_kind(execution: Execution) -> str | None:
    """The name of an execution that the registry knows; None for another one."""
    name = execution.name
    return name if name in kinds("execution") and find("execution", name) is type(execution) else None


def _called(experts: nn.Module) -> bool:
    """Whether the experts are called as one module: a stack, or what somebody wrapped around one."""
    return not isinstance(experts, nn.ModuleList)


def _pool(experts: nn.Module) -> nn.ModuleList | Stack:
    """The list or the stack, also inside of what wraps one."""
    found = (part for part in experts.modules() if isinstance(part, Stack | nn.ModuleList))
    return experts if isinstance(experts, Stack | nn.ModuleList) else next(found)


def _plain_sum(combine: Any) -> bool:
    plain = isinstance(combine, WeightedSum) and type(combine).__call__ is WeightedSum.__call__
    return plain and combine.activation == "none"
