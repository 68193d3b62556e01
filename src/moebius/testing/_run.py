"""Runs checks of one component, each by itself and with the same random numbers."""

from collections.abc import Callable, Iterable

import torch

from moebius.testing._contract import ContractError
from moebius.testing._subject import Subject

Check = Callable[[Subject], None]


def run_check(check: Check, subject: Subject) -> None:
    """Run a check with a seed of its own, and leave torch's generator and its threads as they were.

    Raises:
        ContractError: the component breaks the rule; the message names it.
        Exception: what the component raises by itself, with a note that names the check.
    """
    exempt = getattr(subject.component, "exempt", {})
    if check.__name__ in exempt:
        return
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        try:
            check(subject)
        except ContractError as error:
            error.message = f"{subject}: {error.message}"
            error.args = (error.message,)
            raise
        except Exception as error:
            error.add_note(f"{subject}, in the check {check.__name__}: {check.__doc__}")
            raise


def run_checks(checks: Iterable[Check], subject: Subject) -> None:
    """Run several checks; the first that fails raises."""
    for check in checks:
        run_check(check, subject)
