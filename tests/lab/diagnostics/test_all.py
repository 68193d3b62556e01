"""Every file of the room is tested by existing."""

import inspect
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moebius.kit.registry import find, kinds
from moebius.lab.diagnostics._arrays import sum_by_group
from moebius.lab.report.gate_rows import GateRows, SplitRows

KINDS = kinds("diagnostics")
GENERATOR = np.random.default_rng(0)


def draw_arguments(kind: str, rows: int, experts: int) -> dict[str, Any]:
    """Arguments for a measure, by the names of its parameters."""
    arguments = {
        "weights": GENERATOR.dirichlet([0.5] * experts, rows).astype(np.float32),
        "groups": GENERATOR.integers(0, 3, rows),
        "labels": GENERATOR.integers(0, 3, rows),
        "predictions": GENERATOR.integers(0, 3, rows),
        "names": ["a", "b", "c"],
    }
    arguments["gates"] = {"root": arguments["weights"], "experts.0": arguments["weights"]}
    return {
        name: arguments[name] for name in inspect.signature(find("diagnostics", kind)).parameters if name in arguments
    }


@pytest.mark.parametrize("experts", [1, 2, 20])
@pytest.mark.parametrize("rows", [1, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_returns_a_tidy_frame_without_gaps(kind, rows, experts):
    frame = find("diagnostics", kind)(**draw_arguments(kind, rows, experts))
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(frame.index, pd.RangeIndex)
    assert len(frame) > 0
    assert not frame.isna().any(axis=None)


def permute(value, order):
    if isinstance(value, dict):
        return {name: array[order] for name, array in value.items()}
    return value[order] if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("kind", KINDS)
def test_does_not_depend_on_the_order_of_rows(kind):
    arguments = draw_arguments(kind, 100, 3)
    order = GENERATOR.permutation(100)
    permuted = {name: permute(value, order) for name, value in arguments.items()}
    measure = find("diagnostics", kind)
    pd.testing.assert_frame_equal(measure(**arguments), measure(**permuted))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_a_split_is_a_frame_or_nothing(kind, split):
    weights, labels = GENERATOR.dirichlet([0.5] * 4, 50), GENERATOR.integers(0, 3, 50)
    names = (("a", "b", "c"), ("all",))
    zeros = np.zeros(50, np.int64)
    gate_rows = GateRows("root", split, weights, labels, labels, zeros, *names)
    split_rows = SplitRows(split, labels, labels, zeros, {"root": weights, "experts.1": weights}, *names)
    module = sys.modules[find("diagnostics", kind).__module__]
    frames = [module.table(gate_rows)] if hasattr(module, "table") else []
    frames += [module.split_table(split_rows)] if hasattr(module, "split_table") else []
    assert frames
    assert all(frame is None or len(frame) for frame in frames)
    assert split == "train" or all(frame is not None for frame in frames)


def test_sums_by_group():
    sums, rows = sum_by_group(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 0, 1]), 3)
    assert sums.tolist() == [[3, 4], [6, 8], [0, 0]]
    assert rows.tolist() == [1, 2, 0]
