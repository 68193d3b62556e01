"""Multi-gate mixture of experts (MMoE): a gate and a tower for each task, over one pool of experts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Router
from moebius.core.row_context import row_context
from moebius.core.stack import Stack
from moebius.core.stack_state import accept_stack_state
from moebius.execution._contract import Execution
from moebius.layers._expert_pools import find_pool
from moebius.layers._several_gates import (
    GateCall,
    Modules,
    apply_towers,
    check_batch_axes,
    make_gates,
    make_pool,
    make_routers,
    make_towers,
    mix_pools,
    router_named,
    score_gate,
)
from moebius.layers.mixture import resolve_execution


class MultiGateMixture(nn.Module):
    """Several tasks share one pool of experts: each task has a gate of its own, and a tower for its output.

    f_k(x) = combine(w_k(x), experts(x)),  w_k = router_k(gate_k(x));  y_k = tower_k(f_k(x))

    The experts run once for all tasks. Where routers select, an expert runs on the rows that some task's gate selected
    for it, once for each row; each task's combine takes the weights of its own gate. With `Soft` all experts run on all
    rows.

    Routings are recorded of the gates: `log["gates.click"]` has those of the task click.

    Arguments:
        gates: task → any module x → scores (…, E), as in `Mixture`; a module of its own for each task. The batch axes
            that they keep must be the same.
        experts: modules x → rows of equal shapes, or an `mb.Stack`, as in `Mixture`.
        towers: task → any module from the task's combined rows (T, …) to its output (T, …), with the names of `gates`;
            None: the combined rows are the outputs.
        router: scores (T, E) → Routing, of which each task has a copy; or task → router. By default `Soft`.
        combine: (outputs, routing) → rows, for every task; by default the weighted sum.
        execution: how experts run, as in `Mixture`.

    Shapes: x (batch…, features…) → task → (batch…, outputs…).

    Raises:
        ArgumentError: names of tasks that differ between gates, towers and routers; one module as the gate of two
            tasks; there are no experts; a gate's scores are not one per row and expert; a tower or an expert returns
            something else than one tensor with its rows.

    Example:
        >>> import torch, moebius as mb
        >>> gates = {"click": nn.Linear(4, 3), "price": nn.Linear(4, 3)}
        >>> towers = {"click": nn.Linear(6, 2), "price": nn.Linear(6, 1)}
        >>> moe = MultiGateMixture(gates, [nn.Linear(4, 6) for _ in range(3)], towers)
        >>> {task: tuple(y.shape) for task, y in moe(torch.zeros(5, 4)).items()}
        {'click': (5, 2), 'price': (5, 1)}

    Reference: Ma, Zhao, Yi, Chen, Hong, Chi 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, equations 5 to 7. Routers and combines other than softmax and sum are ours.
    """

    def __init__(
        self,
        gates: Modules,
        experts: Iterable[nn.Module] | Stack,
        towers: Modules | None = None,
        router: Router | Mapping[str, Router] | nn.ModuleDict | None = None,
        combine: Callable[..., Tensor] | None = None,
        execution: str | Execution = "auto",
    ):
        super().__init__()
        self.gates = make_gates(gates)
        self.experts = make_pool("experts", experts)
        self.router = make_routers(router, self.gates)
        self.towers = make_towers(towers, self.gates)
        self.combine = WeightedSum() if combine is None else combine
        self.execution = resolve_execution(execution)
        self.register_load_state_dict_pre_hook(accept_stack_state)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order of the gates."""
        return tuple(self.gates)

    @property
    def count(self) -> int:
        """E, the number of experts."""
        return len(find_pool(self.experts))

    def expert_paths(self, gate: str) -> list[str]:
        """The module paths of the experts that a gate scores, in the order of its scores."""
        return [f"experts.{number}" for number in range(self.count)]

    def forward(
        self, x: Tensor, context: Mapping[str, Tensor] | None = None, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run the mixture.

        Arguments:
            x: rows.
            context: side information for gates, experts and towers whose forward takes a context: tensors with x's
                first axis; also `with mb.context(…)`.
            mask: True for real rows, with the batch axes; also `with mb.context(mask=…)`. Padding reaches no gate,
                expert or tower; its outputs are 0.

        Returns: task → output.
        """
        scored = {
            task: score_gate(task, gate, router_named(self.router, task), self.count, x, context, mask)
            for task, gate in self.gates.items()
        }
        rows = check_batch_axes(scored)
        calls = {
            task: GateCall(self.gates[task], router_named(self.router, task), scored[task], ["experts"])
            for task in scored
        }
        with row_context(rows.context):
            values = mix_pools(calls, {"experts": (self.experts, rows.x)}, self.combine, self.execution, self.training)
            outputs = apply_towers(self.towers, values)
        return {task: rows.restore_batch(y) for task, y in outputs.items()}

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        width, experts = facts["features"], facts["experts"]
        return {
            "gates": {task: nn.Linear(width, experts) for task in ("first", "second")},
            "experts": [nn.Linear(width, 6) for _ in range(experts)],
            "towers": {"first": nn.Linear(6, facts["classes"]), "second": nn.Linear(6, 1)},
        }
