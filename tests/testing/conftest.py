"""Broken components: for each check of a room one that breaks it, and what the error says."""

import pytest

from moebius.testing import ContractError
from moebius.testing._run import run_check
from moebius.testing._subject import Sample, Subject


@pytest.fixture
def breaks():
    """Asserts that a component breaks a check, and that the error says `match` of it."""

    def assert_breaks(checks, name, room, component, match, kind=None, **arguments):
        check = {check.__name__: check for check in checks}[name]
        sample = Sample(experts=4, classes=3) if room == "routers" else Sample()
        with pytest.raises(ContractError, match=match) as caught:
            run_check(check, Subject(room, component, arguments, sample, kind))
        assert str(caught.value).startswith(f"{room} {kind or component.__name__}: ")

    return assert_breaks
