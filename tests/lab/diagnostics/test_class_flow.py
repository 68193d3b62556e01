import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics.class_flow import class_flow, table
from moebius.lab.report.gate_rows import GateRows


def test_rows_are_divided_as_their_weights_say():
    weights = np.array([[1.0, 0.0], [0.5, 0.5], [-0.25, 0.75]])
    frame = class_flow(weights, np.array([0, 0, 2]), ["cat", "dog", "cow"])
    assert frame["group"].tolist() == ["cat", "cat", "cow", "cow"]
    assert frame["rows"].tolist() == [2, 2, 1, 1]
    assert frame["share"].tolist() == [0.75, 0.25, 0.25, 0.75]


def test_groups_have_names():
    with pytest.raises(ArgumentError, match="needs indices of the 1 names"):
        class_flow(np.array([[1.0, 0.0]]), np.array([1]), ["cat"])


@pytest.mark.parametrize(("classes", "lines"), [(2, 2 * 2 * 3), (30, 2 * 3)])
def test_the_table_has_classes_where_they_can_be_read(classes, lines):
    generator = np.random.default_rng(0)
    labels, domains = np.arange(200) % classes, np.arange(200) // 100
    weights = generator.dirichlet([1.0] * 3, 200)
    names = tuple(map(str, range(classes)))
    frame = table(GateRows("test", labels, labels, domains, names, ("a", "b"), "gate", weights))
    assert frame is not None
    assert len(frame) == lines
    assert (frame["share"] * frame["rows"]).sum() == pytest.approx(200)
    of_b = frame[(frame["domain"] == "b") & (frame["expert"] == 1)]
    assert (of_b["share"] * of_b["rows"]).sum() == pytest.approx(weights[100:, 1].sum())
    assert table(GateRows("train", labels, labels, domains, names, ("a", "b"), "gate", weights)) is None
