"""Every combine keeps the contract of `moebius.testing.combine`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("combine"))
def test_every_combine(name, check):
    check()
