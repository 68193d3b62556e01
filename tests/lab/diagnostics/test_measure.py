"""What all measures share: batches, pieces, merging, processes, refusals."""

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pandas as pd
import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.lab.diagnostics import Activation, Balance, Headroom, Load, Measure, RoutedRows
from moebius.lab.diagnostics import _measure as measure_module
from moebius.lab.diagnostics._rows import PIECE
from moebius.testing._measures import make_rows as random_rows

MEASURES = {
    kind: measure
    for kind in kinds("diagnostics")
    if isinstance(measure := find("diagnostics", kind), type) and issubclass(measure, Measure)
}


# A process of its own, which knows nothing of this file.
MEASURE_PART = """
import pickle, sys
from moebius.kit.registry import find
from moebius.testing._measures import make_rows
start, stop, path, *kinds = sys.argv[1:]
measures = {kind: find("diagnostics", kind)() for kind in kinds}
for measure in measures.values():
    measure.update(make_rows(90, 4).take(slice(int(start), int(stop))))
with open(path, "wb") as file:
    pickle.dump(measures, file)
"""


def test_processes_measure_parts_that_merge_into_the_whole(tmp_path):
    parts, paths = [(0, 40), (40, 90)], [tmp_path / "first", tmp_path / "second"]
    for part, path in zip(parts, paths, strict=True):
        command = [sys.executable, "-c", MEASURE_PART, *map(str, part), path, *MEASURES]
        subprocess.run(command, check=True, timeout=300)
    first, second = (pickle.loads(path.read_bytes()) for path in paths)
    for kind, measure in MEASURES.items():
        whole = measure()
        for part in parts:
            whole.update(random_rows(90, 4).take(slice(*part)))
        merged = first[kind].merge(second[kind]).frame()
        pd.testing.assert_frame_equal(merged, whole.frame(), check_exact=False, rtol=1e-9)


def test_more_rows_than_a_piece_are_those_of_its_pieces():
    rows = random_rows(PIECE + 100, 3)
    for kind in ("load", "headroom", "input_dependence", "competence"):
        measure = MEASURES[kind]()
        for part in (slice(0, 1000), slice(1000, None)):
            measure.update(rows.take(part))
        pd.testing.assert_frame_equal(MEASURES[kind].of(rows), measure.frame())


@pytest.mark.parametrize("kind", MEASURES)
def test_a_batch_is_freed_when_it_is_measured(kind):
    gc.disable()
    try:
        rows = random_rows(10, 3)
        kept = weakref.ref(rows)
        MEASURES[kind].of(rows)
        del rows
        assert kept() is None
    finally:
        gc.enable()


def test_every_measure_is_documented():
    text = (Path(__file__).parents[3] / "docs/measures.md").read_text(encoding="utf-8")
    pairs = [find("diagnostics", kind) for kind in ("saturation", "stability")]
    missing = [m.__name__ for m in (*MEASURES.values(), *pairs) if f"| `{m.__name__}` |" not in text]
    assert missing == []


def test_what_rows_lack_is_named(make_rows):
    rows = make_rows([[1.0, 0.0]], losses=[1.0])
    assert not Headroom.accepts(rows)
    with pytest.raises(
        ArgumentError, match="rows: Headroom reads expert_losses, which these rows do not have"
    ) as caught:
        Headroom.of(rows)
    assert caught.value.fix == "RoutedRows(weights, expert_losses=…)"


def test_another_number_of_experts_is_refused(make_rows):
    measure, other = Load(), Load()
    measure.update(make_rows([[1.0, 0.0]]))
    other.update(make_rows([[1.0, 0.0, 0.0]]))
    with pytest.raises(ArgumentError, match="Load measures a gate of 2 experts, got 3"):
        measure.update(make_rows([[1.0, 0.0, 0.0]]))
    with pytest.raises(ArgumentError, match="Load measures a gate of 2 experts, got 3"):
        measure.merge(other)


def test_before_the_first_row_there_is_no_frame(make_rows):
    measure = Balance()
    measure.update(make_rows([[1.0, 0.0]]).take(slice(0, 0)))
    with pytest.raises(ArgumentError, match="Balance has none yet") as caught:
        _ = measure.rows
    assert caught.value.fix == "measure.update(rows), then frame()"


def test_a_measure_that_has_no_rows_merges_from_both_sides(make_rows):
    rows = make_rows([[1.0, 0.0], [0.0, 1.0]], groups={"class": [0, 1]}, names={"class": ["cat", "dog"]})
    measure = Activation()
    measure.update(rows)
    expected = measure.frame()
    pd.testing.assert_frame_equal(Activation().merge(measure).frame(), expected)
    pd.testing.assert_frame_equal(measure.merge(Activation()).frame(), expected)


def test_measures_of_a_report_share_the_rows_of_a_gate():
    import numpy as np

    from moebius.lab.report.gate_rows import GateRows

    zeros = np.zeros(4, np.int64)
    rows = GateRows("test", zeros, zeros, zeros, ("cat",), ("all",), "gate", np.eye(4)[:, :2])
    routed = measure_module._routed(rows)
    assert measure_module._routed(rows) is routed
    assert routed.k == 1
    assert list(routed.groups) == ["domain", "class"]
    assert torch.equal(routed.kept, routed.weights != 0)
    assert isinstance(routed, RoutedRows)
