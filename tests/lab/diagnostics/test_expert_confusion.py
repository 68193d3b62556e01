import numpy as np

from moebius.lab.diagnostics.confusion import confusion
from moebius.lab.diagnostics.expert_confusion import expert_confusion


def test_worked_literal():
    weights = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    frame = expert_confusion(weights, np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])
    assert frame.values.tolist() == [
        [0, "cat", "cat", 1, 0.5],
        [0, "cat", "dog", 1, 0.5],
        [1, "dog", "dog", 1, 1.0],
    ]


def test_the_experts_matrices_add_up_to_the_overall_one():
    generator = np.random.default_rng(0)
    weights = generator.dirichlet([0.5] * 3, 300)
    labels, predictions = generator.integers(0, 4, 300), generator.integers(0, 4, 300)
    each = expert_confusion(weights, labels, predictions, list("abcd"))
    summed = each.groupby(["label", "prediction"])["rows"].sum()
    overall = confusion(labels, predictions, list("abcd")).set_index(["label", "prediction"])["rows"]
    assert summed.to_dict() == overall.to_dict()


def test_one_expert_is_the_overall_matrix():
    labels, predictions = np.array([0, 1, 1]), np.array([0, 1, 0])
    each = expert_confusion(np.ones((3, 1)), labels, predictions, ["a", "b"]).drop(columns="expert")
    assert each.values.tolist() == confusion(labels, predictions, ["a", "b"]).values.tolist()


def test_an_expert_that_wins_nothing_has_no_lines():
    frame = expert_confusion(np.array([[1.0, 0.0, 0.0]]), np.array([0]), np.array([0]), ["a"])
    assert frame["expert"].tolist() == [0]


def test_a_tie_divides_the_row():
    weights = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    labels, predictions = np.array([0, 0, 1]), np.array([0, 1, 1])
    frame = expert_confusion(weights, labels, predictions, ["cat", "dog"])
    assert frame.values.tolist() == [
        [0, "cat", "cat", 0.5, 0.5],
        [0, "cat", "dog", 0.5, 0.5],
        [1, "cat", "cat", 0.5, 0.5],
        [1, "cat", "dog", 0.5, 0.5],
        [2, "dog", "dog", 1, 1.0],
    ]


def test_no_order_of_the_experts_changes_what_a_uniform_gate_gives_them():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    frame = expert_confusion(np.full((40, 4), 0.25), labels, labels, list("abc"))
    rows = [frame[frame["expert"] == expert].drop(columns="expert").values.tolist() for expert in range(4)]
    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert frame["rows"].sum() == 40
