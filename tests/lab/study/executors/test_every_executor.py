"""Every executor keeps the contract of `moebius.testing.executors`; a new one is tested by being there."""

import pytest

from moebius.testing import cases

pytest.importorskip("ray", reason="ray is not installed (pip install 'moebius[ray]')")
pytest.importorskip("submitit", reason="submitit is not installed (pip install 'moebius[submitit]')")


@pytest.mark.parametrize(("name", "check"), cases("study.executors"))
def test_every_executor(name, check):
    check()
