import numpy as np

from moebius.lab.diagnostics.largest_weight import largest_weight


def test_a_row_counts_by_its_largest_share():
    frame = largest_weight(np.array([[1.0, 0.0], [0.2, 0.8], [0.5, 0.5], [-3.0, 1.0]]), bins=4)
    assert frame["rows"].tolist() == [0, 0, 1, 3]
    assert frame["low"].tolist() == [0, 0.25, 0.5, 0.75]


def test_an_even_gate_has_all_rows_at_one_over_e():
    frame = largest_weight(np.full((9, 4), 0.25, dtype=np.float32))
    assert frame.loc[frame["rows"] > 0, "low"].tolist() == [0.25]
    assert frame["share"].sum() == 1
