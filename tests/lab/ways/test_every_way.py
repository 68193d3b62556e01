"""Every way keeps the contract of `moebius.testing.ways`; a new one is tested by being there."""

import pytest

from moebius.lab.remedies import _fitting
from moebius.lab.ways import _controls
from moebius.testing import cases


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(_fitting, "EPOCH_STEPS", 4)
    monkeypatch.setattr(_fitting, "EPOCHS", 2)
    monkeypatch.setattr(_controls, "EPOCHS", 2)


@pytest.mark.parametrize(("name", "check"), cases("ways", skip=["has_an_example_that_runs"]))
def test_every_way(name, check):
    check()
