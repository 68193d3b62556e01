"""The contract of schedules: an epoch → a value."""

import math
from collections.abc import Callable
from typing import Any

from moebius.testing._contract import require, require_refusal
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_schedule(schedule: Callable[..., Callable[[float], float]], **arguments: Any) -> None:
    """Hold a schedule to the contract of the room `schedules`: every function of `CHECKS`.

    Arguments:
        schedule: the class, or a function that makes a schedule.
        arguments: for the constructor; a number that is not given differs from argument to argument.

    Raises:
        ContractError: the first rule that the schedule breaks.

    Example:
        >>> import moebius as mb
        >>> check_schedule(mb.schedules.Linear, start=1.0, end=0.0, epochs=3)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("schedules", schedule, arguments))


def gives_a_finite_float_at_every_epoch(subject: Subject) -> None:
    """The value is a finite float at whole epochs and at fractions of them."""
    schedule = subject.make()
    for epoch in (0, 0.0, 1, 2.5, 100):
        value = schedule(epoch)
        require(isinstance(value, float) and math.isfinite(value), f"gives {value!r} at epoch {epoch}, no finite float")


def depends_on_the_epoch_alone(subject: Subject) -> None:
    """Epochs in another order have the same values."""
    schedule = subject.make()
    forwards = [schedule(epoch / 4) for epoch in range(40)]
    backwards = [schedule(epoch / 4) for epoch in reversed(range(40))]
    require(forwards == backwards[::-1], "gives other values where epochs come in another order")


def equals_a_second_one_of_the_same_arguments(subject: Subject) -> None:
    """Two schedules of the same arguments are equal: a resumed run compares them."""
    require(subject.make() == subject.make(), "differs from a second one of the same arguments", "@dataclass")


def refuses_numbers_that_are_not_finite_by_name(subject: Subject) -> None:
    """NaN and infinity are refused by an ArgumentError that begins with the argument's name."""
    for name in subject.parameters:
        for bad in (math.nan, math.inf):
            pattern, rule = f"^{name}: needs a finite number", f"takes {name}={bad}"
            fix = f'raise moebius.ArgumentError({name!r}, "needs a finite number", {name})'
            changed: dict[str, Any] = {name: bad}
            require_refusal(lambda: subject.make(**changed), pattern, rule, fix)  # noqa: B023


CHECKS = (
    gives_a_finite_float_at_every_epoch,
    depends_on_the_epoch_alone,
    equals_a_second_one_of_the_same_arguments,
    refuses_numbers_that_are_not_finite_by_name,
)
