"""Every augmentation keeps the contract of `moebius.testing.augmentation`; a new one is tested by being there."""

import pytest

from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("data.augmentation"))
def test_every_augmentation(name, check):
    check()
