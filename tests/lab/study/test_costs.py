"""What an image costs, counted by hand for linear experts."""

import torch

from moebius.lab.study.costs import measure_costs

FEATURES, CLASSES = 64, 20


def test_multiply_adds_are_those_of_the_gate_and_of_the_experts_that_run(planned, record, tmp_path):
    study = planned(tmp_path, "training.epochs=1", added="  one: {gate: {kind: uniform}, experts: {count: 1}}")
    record().train_plan(study.plan, study.data)
    threads = torch.get_num_threads()
    costs = measure_costs(study.plan, study.data)
    assert torch.get_num_threads() == threads
    gate, expert = FEATURES * 2, FEATURES * CLASSES
    assert costs["linear"]["as_trained"]["multiply_adds"] == gate + 2 * expert
    assert costs["linear"]["one_expert"]["multiply_adds"] == gate + expert
    assert costs["one"]["as_trained"]["multiply_adds"] == expert
    assert "one_expert" not in costs["one"]
    assert all(cost["microseconds"] > 0 for ways in costs.values() for cost in ways.values())
