"""Every router keeps the contract of `moebius.testing.routers`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("routers"))
def test_every_router(name, check):
    check()
