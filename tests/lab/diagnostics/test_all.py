"""Every diagnostic is tested by existing."""

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moebius.kit.registry import find, kinds
from moebius.lab.diagnostics._arrays import by_group

GENERATOR = np.random.default_rng(0)


def arguments(kind: str, rows: int, experts: int) -> dict[str, Any]:
    """Arguments for a diagnostic, by the names of its parameters."""
    every = {
        "weights": GENERATOR.dirichlet([0.5] * experts, rows).astype(np.float32),
        "groups": GENERATOR.integers(0, 3, rows),
        "labels": GENERATOR.integers(0, 3, rows),
        "predictions": GENERATOR.integers(0, 3, rows),
        "names": ["a", "b", "c"],
    }
    return {name: every[name] for name in inspect.signature(find("diagnostics", kind)).parameters if name in every}


FRAMES = [kind for kind in kinds("diagnostics") if kind != "interval"]


@pytest.mark.parametrize("experts", [1, 2, 20])
@pytest.mark.parametrize("rows", [1, 200])
@pytest.mark.parametrize("kind", FRAMES)
def test_gives_a_tidy_frame_without_gaps(kind, rows, experts):
    frame = find("diagnostics", kind)(**arguments(kind, rows, experts))
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(frame.index, pd.RangeIndex)
    assert len(frame) > 0
    assert not frame.isna().any(axis=None)


@pytest.mark.parametrize("kind", FRAMES)
def test_does_not_depend_on_the_order_of_rows(kind):
    given = arguments(kind, 100, 3)
    order = GENERATOR.permutation(100)
    turned = {name: value[order] if isinstance(value, np.ndarray) else value for name, value in given.items()}
    component = find("diagnostics", kind)
    pd.testing.assert_frame_equal(component(**given), component(**turned))


def test_sums_by_group():
    sums, rows = by_group(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 0, 1]), 3)
    assert sums.tolist() == [[3, 4], [6, 8], [0, 0]]
    assert rows.tolist() == [1, 2, 0]
