"""Every family keeps the contract of `moebius.testing.integrations`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("integrations"))
def test_every_family(name, check):
    check()
