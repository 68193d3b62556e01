"""What an execution gives for some experts, rows and assignments, to compare it with the loop."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Routing, Selection
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._pool import Pool
from moebius.execution.loop import Loop
from moebius.routers.soft import Soft

# Rows, experts and whether an assignment is kept; None where every expert sees every row.
Assignments = tuple[Sequence[int], Sequence[int], Sequence[bool]] | None
# The numbers of rows and experts, and the assignments.
Choice = tuple[int, int, Assignments]
Results = dict[str, Tensor | None]
Ask = Callable[[Any, Any, Tensor, Routing], Tensor]

# The largest error, as a share of the largest value: each of a few products and sums is rounded by up to 2⁻²⁴ (float32)
# or 2⁻⁹ (bf16) of it.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.04}


def outputs_of(execution: Execution, experts: Any, x: Tensor, routing: Routing) -> Tensor:
    """The experts' outputs."""
    return execution(experts, routing, x)


def sum_of(execution: Execution, experts: Any, x: Tensor, routing: Routing) -> Tensor:
    """The weighted sum of the outputs, by the execution itself where it can."""
    execution.check_accepts(Pool(experts), routing, x)
    y = None if routing.selection is None else execution.sum(Pool(experts), routing, x)
    return WeightedSum()(execution(experts, routing, x), routing) if y is None else y


def make_exact(ask: Ask, experts: Any, x: Tensor, weight_A: Tensor, assignments: Assignments) -> Results:
    """What the loop gives in float64 for the same experts as modules without a stack."""
    apart = experts.unstacked() if isinstance(experts, Stack) else experts
    modules = nn.ModuleList(copy.deepcopy(expert).double().cpu() for expert in apart)
    return collect_results(ask, Loop(), modules, x.double(), weight_A.double(), assignments)


def collect_results(
    ask: Ask, execution: Execution, experts: Any, x: Tensor, weight_A: Tensor, assignments: Assignments
) -> Results:
    """The output, and the gradients of the rows, of the router's weights and of each expert's parameters, by name."""
    x, weight_A = x.clone().requires_grad_(), weight_A.clone().requires_grad_()
    y = ask(execution, experts, x, _route(len(x), len(experts), weight_A, assignments))
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y))
    weights = {} if assignments is None or ask is outputs_of else {"weights": weight_A.grad}
    return {"y": y.detach(), "x": x.grad, **weights, **_parameter_gradients(experts)}


def difference_of_results(results: Results, exact: Results, tolerance: float) -> str | None:
    """In what two results differ by more than the tolerance, as a clause; None where they agree."""
    if results.keys() != exact.keys():
        return f"it has gradients of {sorted(results)}, the loop of {sorted(exact)}"
    for name, expected in exact.items():
        values = results[name]
        if values is None or expected is None:
            if values is not expected:
                return f"{name} has {'no gradient' if values is None else 'a gradient'}"
            continue
        if values.shape != expected.shape:
            return f"{name} has the shape {tuple(values.shape)}, needs {tuple(expected.shape)}"
        error = (values.cpu().double() - expected).abs()
        largest = max(1, expected.abs().max().item()) if error.numel() else 1
        if not (error <= tolerance * largest).all():
            return f"{name} is wrong by {error.max().item():.3g}, of values up to {largest:.3g}"
    return None


def _route(rows: int, experts: int, weight_A: Tensor, assignments: Assignments) -> Routing:
    scores = torch.zeros(rows, experts, dtype=weight_A.dtype, device=weight_A.device)
    if assignments is None:
        return Soft()(scores)
    row_A, expert_A, kept_A = (torch.tensor(part, device=weight_A.device) for part in assignments)
    selection = Selection(row_A.long(), expert_A.long(), weight_A, kept_A.bool())
    return Routing.from_selection(scores, scores.softmax(-1), selection)


def _parameter_gradients(experts: Any) -> Results:
    if not isinstance(experts, Stack):
        return {name: parameter.grad for name, parameter in experts.named_parameters()}
    return {
        f"{number}.{name}": None if parameter.grad is None else parameter.grad[number]
        for name, parameter in ((name, getattr(experts, flat)) for name, flat in experts.flat_names.items())
        if isinstance(parameter, nn.Parameter)
        for number in range(len(experts))
    }
