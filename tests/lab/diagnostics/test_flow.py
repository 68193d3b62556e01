import numpy as np
import pytest

from moebius.lab.diagnostics.flow import flow, split_table
from moebius.lab.report.gate_rows import SplitRows

# Four rows: the first two go into branch 0, one of them sent on to its first expert, the other shared evenly.
GATES = {
    "gate": np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
    "experts.0.gate": np.array([[1.0, 0.0], [0.4, 0.6], [np.nan, np.nan], [np.nan, np.nan]]),
}
LABELS = np.array([0, 1, 1, 1])


def test_flow_is_the_product_of_the_weights_on_the_way():
    frame = flow(GATES, LABELS, np.array([0, 0, 1, 1]) == LABELS, ["cat", "dog"]).set_index(["path", "class"])
    assert frame.loc[("experts.0", "cat"), ["share", "rows", "right"]].tolist() == [1, 1, 1]
    assert frame.loc[("experts.0", "dog"), ["of", "rows", "right"]].tolist() == [3, 1, 0]
    assert frame.loc[("experts.0.experts.1", "dog"), "share"] == pytest.approx(0.6 / 3)
    assert frame.loc[("experts.0.experts.1", "dog"), "parent"] == "experts.0.gate"
    assert frame.loc[("experts.1", "dog"), ["share", "rows", "right"]].tolist() == pytest.approx([2 / 3, 2, 2])


def test_a_gate_inside_more_than_a_mixture_still_flows():
    inside = {"gate": GATES["gate"], "experts.0.1.gate": GATES["experts.0.gate"]}
    frame = flow(inside, LABELS, np.ones(4), ["cat", "dog"])
    assert list(dict.fromkeys(frame["path"])) == [
        "experts.0", "experts.0.1.experts.0", "experts.0.1.experts.1", "experts.1",
    ]  # fmt: skip


def make_rows(split="test", gates=GATES):
    return SplitRows(split, LABELS, LABELS, np.zeros(4, np.int64), ("cat", "dog"), ("all",), gates, np.ones(4))


def test_only_nested_gates_on_test_rows_have_a_table():
    # Four experts and two classes.
    assert len(split_table(make_rows())) == 8
    assert split_table(make_rows(split="train")) is None
    assert split_table(make_rows(gates={"gate": GATES["gate"]})) is None


def test_a_tie_divides_the_row_and_its_score():
    gates = {"gate": np.array([[0.5, 0.5], [1.0, 0.0]]), "experts.0.gate": np.array([[0.3, 0.3, 0.3], [0.0, 0.0, 1.0]])}
    frame = flow(gates, np.array([0, 0]), np.array([1, 1]), ["cat"]).set_index("path")
    assert frame["rows"].to_dict() == pytest.approx(
        {"experts.0": 1.5, "experts.0.experts.0": 1 / 6, "experts.0.experts.1": 1 / 6, "experts.0.experts.2": 7 / 6,
         "experts.1": 0.5}
    )  # fmt: skip
    assert frame["right"].to_dict() == pytest.approx(frame["rows"].to_dict())
