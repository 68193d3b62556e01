"""Every diagnostic keeps the contract of `moebius.testing.diagnostics`; a new one is tested by being there."""

import numpy as np
import pytest

from moebius.lab.diagnostics._arrays import sum_by_group
from moebius.testing import cases

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(("name", "check"), cases("diagnostics"))
def test_every_diagnostic(name, check):
    check()


def test_sums_sum_by_group():
    sums, rows = sum_by_group(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 0, 1]), 3)
    assert sums.tolist() == [[3, 4], [6, 8], [0, 0]]
    assert rows.tolist() == [1, 2, 0]
