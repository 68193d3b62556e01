import numpy as np

from moebius.lab.report.gate_rows import SplitRows

NAN = np.nan


def test_a_gate_has_the_rows_that_it_has_weighed():
    gates = {
        "gate": np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]),
        "experts.0.gate": np.array([[0.2, 0.3, 0.5], [NAN, NAN, NAN], [1.0, 0.0, 0.0]]),
        "experts.1.gate": np.full((3, 2), NAN),
    }
    labels, predictions, domains = np.array([2, 1, 0]), np.array([2, 0, 1]), np.array([0, 1, 1])
    rows = SplitRows("test", labels, predictions, domains, ("a", "b", "c"), ("x", "y"), gates, np.ones(len(labels)))
    root, inner = rows.by_gate()
    assert (root.gate, len(root.weights)) == ("gate", 3)
    assert (inner.gate, inner.split) == ("experts.0.gate", "test")
    assert (inner.class_names, inner.domain_names) == (("a", "b", "c"), ("x", "y"))
    assert inner.weights.tolist() == [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]
    assert (inner.labels.tolist(), inner.predictions.tolist(), inner.domains.tolist()) == ([2, 0], [2, 1], [0, 1])
