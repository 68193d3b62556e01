"""The contract of executions: outputs and gradients are those of the loop over experts, in float64."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from moebius.execution._contract import Execution
from moebius.kit.errors import ArgumentError
from moebius.testing._contract import require, require_refusal
from moebius.testing._execution_results import (
    TOLERANCES,
    Choice,
    collect_results,
    difference_of_results,
    make_exact,
    outputs_of,
    sum_of,
)
from moebius.testing._pools import POOLS, make_pool
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

# Rows, experts, and the assignments: rows, experts, kept.
CHOICES: tuple[Choice, ...] = (
    # Any: one row twice with one expert, a row and an expert without the other, some dropped.
    (5, 3, ([0, 0, 3, 1, 4, 0, 2], [2, 2, 0, 2, 0, 0, 0], [True, True, True, False, True, True, False])),
    # Two experts for each row.
    (3, 4, ([0, 0, 1, 1, 2, 2], [3, 1, 0, 1, 2, 3], [True] * 6)),
    # One expert for all; nothing kept; no rows.
    (4, 2, ([0, 1, 2, 3], [1, 1, 1, 1], [True] * 4)),
    (2, 2, ([0, 1], [1, 0], [False] * 2)),
    (0, 2, ([], [], [])),
)
# Feed-forward blocks, dense layers, anything, and lists: these meet every choice, the others the first.
_FEW_POOLS = ("gelu", "linear", "buffers", "unlike")


def check_execution(execution: Callable[..., Execution], **arguments: Any) -> None:
    """Hold an execution to the contract of the room `execution`: every function of `CHECKS`.

    Arguments:
        execution: the class.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the execution breaks.

    Example:
        >>> import moebius as mb
        >>> class Doubled(mb.execution.Loop):
        ...     def run(self, pool, routing, x):
        ...         return 2 * super().run(pool, routing, x)
        >>> check_execution(Doubled)
        Traceback (most recent call last):
        ...
        moebius.testing._contract.ContractError: execution Doubled: differs from the loop for 5 rows of 3 experts ...

    Reference: ours.
    """
    run_checks(CHECKS, Subject("execution", execution, arguments))


def is_an_execution(subject: Subject) -> None:
    """It is a subclass of `moebius.Execution` with a truth value `everyone`."""
    execution = subject.make()
    require(isinstance(execution, Execution), "is no moebius.Execution", "class …(moebius.Execution)")
    require(isinstance(execution.everyone, bool), f"declares everyone = {execution.everyone!r}, no truth value")


def gives_the_outputs_and_gradients_of_the_loop_for_a_selection(subject: Subject) -> None:
    """Outputs, weighted sums and gradients are the loop's for assignments between rows and experts."""
    for name in POOLS:
        for number, choice in enumerate(CHOICES if name in _FEW_POOLS else CHOICES[:1]):
            for dtype in TOLERANCES if number == 0 and name in _FEW_POOLS else (torch.float64,):
                compare_with_loop(subject.make(), name, dtype, choice)


def gives_the_outputs_and_gradients_of_the_loop_for_all_pairs(subject: Subject) -> None:
    """Outputs and gradients are the loop's where every expert sees every row; some experts it has to run."""
    ran = []
    for name in POOLS:
        for rows, count, dtype in ((5, 3, torch.float64), (1, 1, torch.float32), (0, 2, torch.bfloat16)):
            ran.append(compare_with_loop(subject.make(), name, dtype, (rows, count, None)))
    require(any(ran), "refuses experts of all kinds")


def compare_with_loop(
    execution: Execution, pool: str, dtype: torch.dtype, choice: Choice, seed: int = 0, device: str = "cpu"
) -> bool:
    """Hold an execution to the loop for experts of one kind; one that refuses them has to say so with a fix.

    Arguments:
        execution: what runs the experts.
        pool: a name in `POOLS`.
        dtype: of experts and rows, a key of `TOLERANCES`.
        choice: rows, experts and the assignments between them, or None for every pair.
        seed: of the rows and weights.
        device: where experts and rows are.

    Returns: whether it ran.

    Raises:
        ContractError: outputs, their weighted sums, or gradients differ from the loop's, or it refuses without a fix.
    """
    rows, count, assignments = choice
    experts, shape = make_pool(pool, count, dtype, device)
    torch.manual_seed(seed)
    x = torch.randn(rows, *shape).to(dtype)
    # Routers weigh in float32 at least.
    size = 0 if assignments is None else len(assignments[0])
    weight_A = torch.rand(size, dtype=torch.promote_types(dtype, torch.float32))
    for ask in (outputs_of,) if assignments is None else (outputs_of, sum_of):
        exact = make_exact(ask, experts, x, weight_A, assignments)
        experts.zero_grad()

        def run(ask: Any = ask) -> dict[str, Tensor | None]:
            return collect_results(ask, execution, experts, x.to(device), weight_A.to(device), assignments)

        try:
            results = run()
        except ArgumentError as error:
            _require_usable_refusal(error, execution)
            return False
        where = f"for {rows} rows of {count} experts ({pool}, {dtype})"
        y = results["y"]
        require(y is not None and y.dtype == dtype, f"gives another number format than {dtype} {where}")
        difference = difference_of_results(results, exact, TOLERANCES[dtype])
        require(difference is None, f"differs from the loop {where}: {difference}")
    return True


def _require_usable_refusal(error: ArgumentError, execution: Execution) -> None:
    def refuse() -> None:
        raise error

    pattern = rf"^execution: {re.escape(execution.name)} (needs|may)"
    require_refusal(refuse, pattern, "refuses experts without a reason that begins with needs or may")
    rule = f"refuses experts with the fix {error.fix!r}"
    require(error.fix in ('execution="auto"', 'execution="loop"'), rule, 'execution="auto"')


CHECKS = (
    is_an_execution,
    gives_the_outputs_and_gradients_of_the_loop_for_a_selection,
    gives_the_outputs_and_gradients_of_the_loop_for_all_pairs,
)
