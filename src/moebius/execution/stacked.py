"""The execution that computes equal experts on the same rows at once."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from moebius.core.equality import describe_difference
from moebius.core.module_views import named_tensors
from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._layers import expert_outputs
from moebius.execution._pool import Pool
from moebius.execution._running import check_shapes, checked_output, has_rows
from moebius.execution._vmapped import stacked_tensors, vmapped_outputs
from moebius.execution.loop import all_outputs as loop_outputs


class Stacked(Execution):
    """Run equal experts on the same rows at once; among unlike experts, each group of equal ones.

    Experts of dense layers take one product for each layer; others one vmapped call over stacked tensors. A `Stack`
    holds these tensors; for a list of modules every call stacks them.

    Example:
        >>> from moebius.routers import Soft
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Stacked().run(experts, Soft()(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 2, 3])

    Reference: ours; torch.func's model ensembling.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Routers that select, experts of which no two are equal, and experts that may differ from the loop."""
        if routing.selection is not None:
            return "needs every expert to see every row: the router selects"
        return _refuse_unequal(pool)

    def run(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
        """The outputs of all experts for all rows."""
        return _grouped_outputs(pool, x)


def _grouped_outputs(pool: Pool, x: Tensor) -> Tensor:
    """The outputs of all experts on the same rows, (T, E, …), each group of equal experts at once."""
    if pool.groups == [pool]:
        return _outputs_at_once(pool, x)
    outputs: list[Tensor] = [x] * len(pool)
    for group in pool.groups:
        group_outputs = _outputs_at_once(group, x).unbind(1) if group.runs_at_once else _outputs_one_by_one(group, x)
        for output, number in zip(group_outputs, group.numbers, strict=True):
            outputs[number] = output
    return torch.stack(check_shapes(outputs, range(len(outputs))), 1)


def _outputs_one_by_one(pool: Pool, x: Tensor) -> list[Tensor]:
    numbered = zip(pool.numbers, pool.all_experts(), strict=True)
    return [checked_output(number, expert, x) for number, expert in numbered]


def _outputs_at_once(pool: Pool, x: Tensor) -> Tensor:
    """The outputs of equal experts on the same rows, (T, E, …)."""
    if next(named_tensors(pool.template), None) is None:
        return torch.stack([checked_output(pool.numbers[0], pool.template, x)] * len(pool), 1)
    if pool.layers_obstacle is None:
        return expert_outputs(pool, x)
    stack = pool.stack
    if stack is None:
        tensors = stacked_tensors(pool.modules)
    else:
        stacked = stack.tensors()
        tensors = {name: stacked[flat_name] for name, flat_name in stack.template_names.items()}
    outputs = vmapped_outputs(pool.template, tensors, x, axis=1)
    # Run one by one, the expert with a wrong output is named in the error.
    return outputs if has_rows(outputs, x) else torch.stack(_outputs_one_by_one(pool, x), 1)


def all_outputs(pool: Pool, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
    """The outputs of all experts for all rows: at once where the result is that of the loop, else by the loop."""
    return loop_outputs(pool, x) if _refuse_unequal(pool) else _grouped_outputs(pool, x)


def _refuse_unequal(pool: Pool) -> str | None:
    if any(group.runs_at_once for group in pool.groups):
        return None
    reason = None if pool.stack is not None else describe_difference(pool.modules)
    return f"needs equal experts: {reason}" if reason else f"may differ from the loop: {pool.vmap_obstacle}"
