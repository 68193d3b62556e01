"""Every layer keeps the contract of `moebius.testing.layers`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("layers"))
def test_every_layer(name, check):
    check()
