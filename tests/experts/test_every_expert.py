"""Every expert keeps the contract of `moebius.testing.experts`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("experts"))
def test_every_expert(name, check):
    check()
