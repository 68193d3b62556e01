"""All checks of all kinds of a room, for a test file to walk."""

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from moebius.kit.errors import UnknownKindError
from moebius.kit.registry import ROOMS, did_you_mean, find, kinds
from moebius.testing import components
from moebius.testing._run import Check, run_check, run_checks
from moebius.testing._subject import Subject


@dataclass(frozen=True)
class Case:
    """One check of one kind; a call runs it.

    Arguments:
        room: of the registry.
        kind: of the room.
        check: what has to hold.
    """

    room: str
    kind: str
    check: Check

    @property
    def __name__(self) -> str:
        """The room, which test tools show beside the name of the case."""
        return self.room

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ContractError: the component breaks the rule.
        """
        run_check(self.check, Subject.of_kind(self.room, self.kind))


def cases(room: str, skip: Collection[str] = ()) -> list[tuple[str, Case]]:
    """Name and check, for every check of every kind of a room: of the package, of entry points, and registered.

    A component that a check does not fit says so itself: `exempt = {"name_of_the_check": "the reason"}`.

    Arguments:
        room: gates, routers, experts, combine, execution, layers, losses, schedules, tasks, integrations,
            diagnostics, data.sources or data.augmentation.
        skip: kinds, checks, or names of cases ("linear.documents_itself") to leave out.

    Returns: ("linear.permuting_rows_permutes_scores", a function without arguments) and so on. A test file is then

        @pytest.mark.parametrize(("name", "check"), moebius.testing.cases("gates"))
        def test_gates(name, check):
            check()

    Raises:
        UnknownKindError: there is no such room, or `skip` or `exempt` names nothing that there is.

    Example:
        >>> [name for name, check in cases("gates") if name.startswith("uniform.")][:2]
        ['uniform.scores_every_row_for_every_expert', 'uniform.scores_a_single_expert']
        >>> for name, check in cases("schedules", skip=["has_an_example_that_runs", "cosine"]):
        ...     check()

    Reference: ours.
    """
    every = {f"{kind}.{check.__name__}": Case(room, kind, check) for kind in _kinds(room) for check in checks(room)}
    names = {*every, *(case.kind for case in every.values()), *(check.__name__ for check in checks(room))}
    for name in skip:
        _require_known(name, names, "skip")
    chosen = []
    for name, case in every.items():
        if {name, case.kind, case.check.__name__}.isdisjoint({*skip, *_exempt(case)}):
            chosen.append((name, case))
    return chosen


def check_component(room: str, kind: str, **arguments: Any) -> None:
    """Hold one kind of a room to the contract of the room and to that of all components.

    Arguments:
        room: of the registry.
        kind: a file of the room, an entry point, or a name that `moebius.register` gave.
        arguments: for the constructor. Others follow from the standard sample (features, size, experts, classes, …),
            from an attribute `example` of the component (a mapping, or a function of the facts that gives one), or
            from their types.

    Raises:
        ContractError: the first rule that the component breaks.
        UnknownKindError: there is no such room or kind.
        ArgumentError: nothing says what a required argument is.

    Example:
        >>> check_component("gates", "mlp", hidden=[3])

    Reference: ours.
    """
    _kinds(room)
    run_checks(checks(room), Subject.of_kind(room, kind, arguments))


def checks(room: str) -> tuple[Check, ...]:
    """The checks of a room, its own and those of all components.

    Example:
        >>> [check.__name__ for check in checks("schedules")][0]
        'gives_a_finite_float_at_every_epoch'
    """
    module = importlib.import_module(f"moebius.testing.{room.rpartition('.')[2]}")
    return (*module.CHECKS, *components.CHECKS)


def _kinds(room: str) -> tuple[str, ...]:
    _require_known(room, ROOMS, "room")
    return kinds(room)


def _exempt(case: Case) -> Collection[str]:
    """The checks that a component exempts itself from, each of which has to be one."""
    component: Callable[..., Any] = find(case.room, case.kind)
    names = getattr(component, "exempt", {})
    for name in names:
        _require_known(name, [check.__name__ for check in checks(case.room)], f"{case.kind}.exempt")
    return names


def _require_known(name: str, names: Collection[str], noun: str) -> None:
    if name not in names:
        raise UnknownKindError(f"{noun}: nothing is called {name!r}", did_you_mean(name, names))
