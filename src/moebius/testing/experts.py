"""The contract of experts: rows → one output for each row.

An expert that declares `by_position = True` gives an output for each pixel of images, (T, C, height, width).
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from moebius.execution.stacked import Stacked
from moebius.routers.soft import Soft
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_gradients,
    require_kept_state,
    require_loadable,
    require_refusal,
    require_repeatable,
    require_shape,
    require_true_gradients,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Sample, Subject

# Images of another size than those of the standard sample.
_OTHER_SIZE = (2, 1, 9, 7)


def check_expert(expert: Callable[..., nn.Module], x: Tensor | None = None, classes: int = 5, **arguments: Any) -> None:
    """Hold an expert to the contract of the room `experts`: every function of `CHECKS`.

    Arguments:
        expert: the class, or a function that makes a new expert.
        x: rows, (N, …), N ≥ 1, of floating-point numbers; random grey images of 8×8 pixels unless given.
        classes: C, for an argument of this name.
        arguments: for the constructor; facts such as `features` and `size` follow from the rows.

    Raises:
        ContractError: the first rule that the expert breaks.

    Example:
        >>> import moebius as mb
        >>> check_expert(mb.experts.MLP, hidden=[6])
        >>> check_expert(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Dropout()))
        >>> check_expert(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5).requires_grad_(False)))
        Traceback (most recent call last):
        ...
        moebius.testing._contract.ContractError: experts <lambda>: passes no gradient to 1.weight

    Reference: ours.
    """
    run_checks(CHECKS, Subject("experts", expert, arguments, Sample(x, classes=classes)))


def gives_one_output_for_each_row(subject: Subject) -> None:
    """Outputs are (T, …) in the precision of the rows, for 7 rows, one and none; (T, C) for experts of C classes."""
    for count, dtype in product((7, 1, 0), DTYPES):
        y = subject.make().to(dtype)(subject.sample.rows(count, dtype))
        require(isinstance(y, Tensor), f"gives a {type(y).__name__}, needs one tensor")
        if getattr(subject.component, "by_position", False):
            positions = tuple(subject.sample.rows(1).shape[2:])
            require_shape(y, (count, _width(subject, y, axis=1), *positions), "outputs")
        else:
            width = _width(subject, y)
            rule = f"gives outputs of shape {tuple(y.shape)} for {count} rows, needs ({count}, {width})"
            require(y.shape[:1] == (count,) and y.shape[-1] == width, rule)
        require_dtype(y, dtype, "outputs")


def gives_the_same_in_bfloat16(subject: Subject) -> None:
    """Outputs in bf16 are those in float32 but for rounding, 5 %."""
    rounded = subject.make().eval().bfloat16()(subject.sample.rows(16, torch.bfloat16)).float()
    exact = subject.make().eval()(subject.sample.rows(16))
    require_close(rounded, exact, "gives other outputs in bf16 than in float32", rtol=0.05, atol=0.05)


def permuting_rows_permutes_outputs(subject: Subject) -> None:
    """A row's output does not depend on its place, in eval."""
    expert, x, order = subject.make().eval(), subject.sample.rows(9), torch.arange(9).flip(0)
    require_close(expert(x[order]), expert(x)[order], "treats rows by their place: permuted rows differ")


def gives_the_same_twice_in_eval_and_leaves_its_input(subject: Subject) -> None:
    """In eval the same rows have the same outputs, and are not changed in place."""
    require_repeatable(subject.make().eval(), subject.sample.rows(5), "rows")


def keeps_its_state_where_there_are_no_rows(subject: Subject) -> None:
    """A batch without rows changes no parameter and no buffer."""
    expert = subject.make()
    require_kept_state(expert, lambda: expert(subject.sample.rows(0)), "rows")


def passes_a_gradient_to_every_parameter_and_the_input(subject: Subject) -> None:
    """Outputs have a gradient for each parameter and for the rows that is not 0."""
    expert, x = subject.make(), subject.sample.rows(32).requires_grad_()
    y = expert(x)
    require(y.requires_grad, "gives outputs without a gradient")
    y.square().sum().backward()
    require_gradients(expert, [("the input", x)])


def has_the_gradients_of_finite_differences(subject: Subject) -> None:
    """Gradients of the rows are those of finite differences, in float64 and eval."""
    expert, x = subject.make().double().eval(), subject.sample.rows(2, torch.float64).requires_grad_()
    require_true_gradients(expert, x, "has other gradients than finite differences")


def gives_the_same_once_loaded(subject: Subject) -> None:
    """A second expert gives other outputs until it loads the state dict of the first."""
    require_loadable(subject.make().eval(), subject.make(1).eval(), subject.sample.rows(4))


def refuses_impossible_facts_by_name(subject: Subject) -> None:
    """A fact of 0 or −1, such as `features=0`, is refused by an ArgumentError that begins with its name."""
    for name, bad in product(subject.facts, (0, -1)):
        fix = f'raise moebius.ArgumentError({name!r}, "needs a whole number of at least 1", {name})'
        require_refusal(lambda: subject.make(**{name: bad}), f"^{name}: ", f"takes {name}={bad}", fix)  # noqa: B023


def refuses_images_of_another_size(subject: Subject) -> None:
    """Images of another size are refused by an ArgumentError with their shape, where the size is an argument."""
    required = {name for name, p in subject.parameters.items() if p.default is p.empty}
    if required & subject.facts.keys() & {"features", "size"}:
        shape = ", ".join(str(length) for length in _OTHER_SIZE)
        require_refusal(lambda: subject.make()(torch.zeros(_OTHER_SIZE)), shape, f"takes images of shape ({shape})")


def stacked_is_the_loop(subject: Subject) -> None:
    """Where `rowwise` is declared, 1, 2 and 5 experts at once give what they give one by one, gradients among it."""
    for rows, count in product((6, 1, 0), (1, 2, 5)) if hasattr(subject.component, "rowwise") else ():
        pool = nn.ModuleList(subject.make(seed) for seed in range(count)).double()
        x, gradient = subject.sample.rows(rows, torch.float64), None
        results = []
        for at_once in (True, False):
            leaf = x.clone().requires_grad_()
            outputs = _stacked(pool, leaf) if at_once else torch.stack([expert(leaf) for expert in pool], 1)
            gradient = torch.rand(outputs.shape, dtype=torch.float64) if gradient is None else gradient
            results.append((outputs, torch.autograd.grad(outputs, [leaf, *pool.parameters()], gradient)))
        require_close(results[0], results[1], f"differs where {count} run at once on {rows} rows")


def stacked_trains_no_frozen_expert(subject: Subject) -> None:
    """Where `rowwise` is declared, experts at once train each expert's parameters, and none of a frozen expert."""
    if hasattr(subject.component, "rowwise"):
        pool = [subject.make(seed) for seed in range(3)]
        pool[1].requires_grad_(False)
        _stacked(pool, subject.sample.rows(6)).sum().backward()
        trained = all(p.grad is not None for expert in (pool[0], pool[2]) for p in expert.parameters())
        require(trained, "does not train every parameter where several run at once")
        require(all(p.grad is None for p in pool[1].parameters()), "trains a frozen expert where several run at once")


def _stacked(pool: Any, x: Tensor) -> Tensor:
    return Stacked()(pool, Soft()(torch.zeros(len(x), len(pool))), x)


def _width(subject: Subject, y: Tensor, axis: int = -1) -> int:
    """What the axis of the outputs has to be: an argument says, else it is free."""
    facts = subject.sample.facts
    named = [name for name in ("classes", "outputs", "features") if subject.takes(name)]
    return facts[named[0]] if named else y.shape[axis]


CHECKS = (
    gives_one_output_for_each_row,
    gives_the_same_in_bfloat16,
    permuting_rows_permutes_outputs,
    gives_the_same_twice_in_eval_and_leaves_its_input,
    keeps_its_state_where_there_are_no_rows,
    passes_a_gradient_to_every_parameter_and_the_input,
    has_the_gradients_of_finite_differences,
    gives_the_same_once_loaded,
    refuses_impossible_facts_by_name,
    refuses_images_of_another_size,
    stacked_is_the_loop,
    stacked_trains_no_frozen_expert,
)
