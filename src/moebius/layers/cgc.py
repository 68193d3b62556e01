"""Customized gate control (CGC): shared experts, and experts that belong to one task."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.gate_call import ScoredRows
from moebius.core.routing import Router
from moebius.core.row_context import row_context
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.kit.errors import ArgumentError
from moebius.layers._expert_pools import find_pool
from moebius.layers._several_gates import (
    GateCall,
    Modules,
    apply_towers,
    check_batch_axes,
    check_names,
    check_same_names,
    make_gates,
    make_pool,
    make_routers,
    make_towers,
    mix_pools,
    router_named,
    score_gate,
)
from moebius.layers.mixture import resolve_execution

# The name of the path, and of the gate, that belongs to no task.
SHARED = "shared"


class CGC(nn.Module):
    """Each task's gate weighs the task's own experts and the shared experts: one level of a `PLE`, or a model itself.

    g_k = combine(w_k(x_k), [own_k(x_k), shared(x_shared)]),  w_k = router_k(gate_k(x_k));  y_k = tower_k(g_k)

    A task's own experts see its input only, and no other task's gate weighs them. With a gate called "shared" there is
    one more output, for the shared path of the next level: that gate sees x_shared and weighs all experts. Every expert
    runs once; where routers select, on the rows that some gate selected for it.

    Scores are in the order of `expert_paths(name)`: a task's own experts first and then the shared ones; for the shared
    gate the experts of all tasks, in the order of the gates, and then the shared ones. Routings are recorded of the
    gates: `log["gates.click"]`.

    Arguments:
        gates: task → any module x → scores (…, own + shared), and "shared" → scores (…, all experts) for an output of
            the shared path; a module of its own for each.
        experts: task → its own experts, a list or an `mb.Stack`.
        shared: the shared experts, a list or an `mb.Stack`; without any, each task is learned by experts of its own
            alone. All experts return rows of equal shapes.
        towers: task → any module from the task's combined rows (T, …) to its output (T, …); None: the combined rows
            are the outputs.
        router: scores (T, E) → Routing, of which each gate has a copy; or gate → router. By default `Soft`.
        combine: (outputs, routing) → rows, for every gate; by default the weighted sum.
        execution: how experts run, as in `Mixture`.

    Shapes: x (batch…, features…), the same for all paths, or task and "shared" → x; → task (and "shared") → (batch…,
    outputs…).

    Raises:
        ArgumentError: names of tasks that differ between gates, experts, towers, routers and inputs; one module as the
            gate of two names; a list without experts; a gate's scores are not one per row and expert; a tower or an
            expert returns something else than one tensor with its rows.

    Example:
        >>> import torch
        >>> gates = {"click": nn.Linear(4, 3), "price": nn.Linear(4, 3)}  # one own expert and two shared ones
        >>> own = {"click": [nn.Linear(4, 6)], "price": [nn.Linear(4, 6)]}
        >>> layer = CGC(gates, own, shared=[nn.Linear(4, 6), nn.Linear(4, 6)])
        >>> {task: tuple(y.shape) for task, y in layer(torch.zeros(5, 4)).items()}
        {'click': (5, 6), 'price': (5, 6)}
        >>> layer.expert_paths("price")
        ['experts.price.0', 'shared.0', 'shared.1']

    Reference: Tang, Liu, Zhao, Gong 2020, Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
    Personalized Recommendations, section 4.1. Routers and combines other than softmax and sum are ours.
    """

    def __init__(
        self,
        gates: Modules,
        experts: Mapping[str, Iterable[nn.Module] | Stack] | nn.ModuleDict,
        shared: Iterable[nn.Module] | Stack = (),
        towers: Modules | None = None,
        router: Router | Mapping[str, Router] | nn.ModuleDict | None = None,
        combine: Callable[..., Tensor] | None = None,
        execution: str | Execution = "auto",
    ):
        super().__init__()
        self.gates = make_gates(gates)
        if self.tasks == ():
            raise ArgumentError("gates", "needs at least one task", list(gates), 'gates={"click": …, "shared": …}')
        pools = check_names("experts", experts)
        check_same_names("experts", pools, self.tasks, "gates")
        self.experts = nn.ModuleDict({task: make_pool(f"experts.{task}", pools[task]) for task in self.tasks})
        shared = shared if isinstance(shared, Stack) else [*shared]
        self.shared = make_pool(SHARED, shared) if len(shared) else nn.ModuleList()
        self.router = make_routers(router, self.gates)
        self.towers = make_towers(towers, self.tasks)
        self.combine = WeightedSum() if combine is None else combine
        self.execution = resolve_execution(execution)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order of the gates."""
        return tuple(name for name in self.gates if name != SHARED)

    @property
    def has_shared_output(self) -> bool:
        """Whether there is a gate, and an output, for the shared path."""
        return SHARED in self.gates

    def expert_paths(self, gate: str) -> list[str]:
        """The module paths of the experts that a gate scores, in the order of its scores."""
        return [f"{pool}.{number}" for pool in self._pools(gate) for number in range(self._count(pool))]

    def forward(
        self,
        x: Tensor | Mapping[str, Tensor],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run the layer.

        Arguments:
            x: rows; or task → rows of its path, and "shared" → rows of the shared path, all with the same batch axes.
            context: side information for gates, experts and towers whose forward takes a context: tensors with x's
                first axis; also `with mb.context(…)`.
            mask: True for real rows, with the batch axes; also `with mb.context(mask=…)`. Padding reaches no gate,
                expert or tower; its outputs are 0.

        Returns: task → output, and "shared" → output where there is a gate of that name.
        """
        if isinstance(x, Tensor):
            x = dict.fromkeys((*self.tasks, SHARED), x)
        check_same_names("x", x, (*self.tasks, SHARED), "gates, and of the shared path")
        scored = {
            name: score_gate(
                name, gate, router_named(self.router, name), len(self.expert_paths(name)), x[name], context, mask
            )
            for name, gate in self.gates.items()
        }
        rows = check_batch_axes(scored)
        pools = {f"experts.{task}": (self.experts[task], scored[task].x) for task in self.tasks}
        calls = {
            name: GateCall(self.gates[name], router_named(self.router, name), scored[name], self._pools(name))
            for name in scored
        }
        with row_context(rows.context):
            if len(self.shared):
                pools[SHARED] = (self.shared, self._shared_rows(x[SHARED], scored, rows))
            values = mix_pools(calls, pools, self.combine, self.execution, self.training)
            outputs = apply_towers(self.towers, values)
        return {name: rows.restore_batch(y) for name, y in outputs.items()}

    def _shared_rows(self, x: Tensor, scored: Mapping[str, ScoredRows], rows: ScoredRows) -> Tensor:
        if SHARED in scored:
            return scored[SHARED].x
        shared_rows = rows.take_rows(x)
        if shared_rows.shape[0] != rows.x.shape[0]:
            rule = f"needs the batch axes of the tasks' inputs, which have {len(rows.x)} rows"
            raise ArgumentError(f"x.{SHARED}", rule, tuple(x.shape), "inputs with one entry for each row")
        return shared_rows

    def _pools(self, gate: str) -> list[str]:
        """The names of the pools that a gate scores."""
        tasks = self.tasks if gate == SHARED else (gate,)
        return [*(f"experts.{task}" for task in tasks), *([SHARED] if len(self.shared) else [])]

    def _count(self, pool: str) -> int:
        return len(find_pool(self.shared if pool == SHARED else self.experts[pool.removeprefix("experts.")]))

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        width, tasks = facts["features"], ("first", "second")
        return {
            "gates": {**{task: nn.Linear(width, 3) for task in tasks}, SHARED: nn.Linear(width, 4)},
            "experts": {task: [nn.Linear(width, 6)] for task in tasks},
            "shared": [nn.Linear(width, 6) for _ in range(2)],
            "towers": {"first": nn.Linear(6, facts["classes"]), "second": nn.Linear(6, 1)},
        }
