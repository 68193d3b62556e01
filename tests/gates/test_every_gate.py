"""Every gate keeps the contract of `moebius.testing.gates`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("gates"))
def test_every_gate(name, check):
    check()
