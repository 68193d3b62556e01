"""What an image costs, counted by hand for linear experts."""

import torch

from moebius.lab.study.costs import measure_costs
from moebius.lab.study.train_run import train_run

FEATURES, CLASSES = 64, 20


def test_multiply_adds_are_those_of_the_gate_and_of_the_experts_that_run(planned, tmp_path):
    study = planned(tmp_path, "training.epochs=1", added="  one: {gate: {kind: uniform}, experts: {count: 1}}")
    for run in study.plan.runs:
        train_run(run, study.data, tmp_path, "cpu", lambda event: None)
    threads = torch.get_num_threads()
    costs = measure_costs(study.plan, study.data, tmp_path)
    assert torch.get_num_threads() == threads
    gate, expert = FEATURES * 2, FEATURES * CLASSES
    assert costs["linear"]["as_trained"]["multiply_adds"] == gate + 2 * expert
    assert costs["linear"]["one_expert"]["multiply_adds"] == gate + expert
    assert costs["one"]["as_trained"]["multiply_adds"] == expert
    assert "one_expert" not in costs["one"]
    assert all(cost["microseconds"] > 0 for ways in costs.values() for cost in ways.values())
