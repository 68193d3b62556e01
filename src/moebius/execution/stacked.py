"""Equal experts that all run, as one product."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.equality import describe_difference
from moebius.core.routing import Routing
from moebius.execution._contract import Execution
from moebius.execution._layers import outputs_of_all
from moebius.execution._pool import Pool
from moebius.execution._running import check_shapes, checked_output, has_rows
from moebius.execution._vmapped import stacked_tensors, tensors_by_part, vmapped_outputs
from moebius.execution.loop import all_outputs as one_by_one


class Stacked(Execution):
    """Run equal experts on the same rows at once; of unlike ones, those that are equal.

    Experts of dense layers become one product for each layer; others one vmapped call over stacked tensors, which lie
    ready in a `Stack` and are laid together in every call for a list of modules.

    Example:
        >>> from moebius.routers import Soft
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Stacked().run(experts, Soft()(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 2, 3])

    Reference: ours; torch.func's model ensembling.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Routers that select, experts of which no two are equal, and what would differ from the loop."""
        if routing.selection is not None:
            return "needs every expert to see every row: the router selects"
        return _unequal(pool)

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
        """The outputs of all experts for all rows."""
        return _all(pool, x)


def _all(pool: Pool, x: Tensor) -> Tensor:
    if pool.alike == [pool]:
        return _together(pool, x)
    outputs: list[Tensor] = [x] * len(pool)
    for equal in pool.alike:
        several = _together(equal, x).unbind(1) if equal.at_once else _one_by_one(equal, x)
        for output, number in zip(several, equal.numbers, strict=True):
            outputs[number] = output
    return torch.stack(check_shapes(outputs, range(len(outputs))), 1)


def _one_by_one(pool: Pool, x: Tensor) -> list[Tensor]:
    return [checked_output(number, expert, x) for number, expert in zip(pool.numbers, pool.every(), strict=True)]


def _together(pool: Pool, x: Tensor) -> Tensor:
    """The outputs of equal experts on the same rows, (T, E, …)."""
    if not tensors_by_part(pool.first):
        return torch.stack([checked_output(pool.numbers[0], pool.first, x)] * len(pool), 1)
    if pool.layered is None:
        return outputs_of_all(pool, x)
    stack = pool.stack
    if stack is None:
        tensors = stacked_tensors(pool.modules)
    else:
        of_stack = stack.tensors()
        tensors = {name: of_stack[flat] for name, flat in stack.template_names.items()}
    outputs = vmapped_outputs(pool.first, tensors, x, axis=1)
    # One by one they say which expert gives something else.
    return outputs if has_rows(outputs, x) else torch.stack(_one_by_one(pool, x), 1)


def all_outputs(pool: Pool, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
    """The outputs of all experts for all rows, as one product where that is the loop's result."""
    return one_by_one(pool, x) if _unequal(pool) else _all(pool, x)


def _unequal(pool: Pool) -> str | None:
    if any(equal.at_once for equal in pool.alike):
        return None
    why = None if pool.stack is not None else describe_difference(pool.modules)
    return f"needs equal experts: {why}" if why else f"may differ from the loop: {pool.obstacle[1]}"
