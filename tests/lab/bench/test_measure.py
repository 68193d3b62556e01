from dataclasses import replace

import pytest

from moebius.kit.registry import kinds
from moebius.lab.bench import Workload, bench
from moebius.lab.bench.measure import ACTIVE, BARE, PARAMETERS, verdict
from moebius.lab.bench.timing import ratio_row

TINY = {"dim": 8, "hidden": 16, "experts": 4, "k": 2, "rows": 12}


@pytest.fixture(scope="module")
def measured():
    return bench(Workload(**TINY), rounds=2)


def test_every_execution_ran_or_has_a_reason(measured):
    ran = {cost.name for cost in measured.costs} - {ACTIVE, PARAMETERS, BARE}
    assert ran | set(measured.not_run) == set(kinds("execution")) - {"auto"}
    assert not ran & set(measured.not_run)
    assert {"loop", "sorted", "dense", "gather"} <= ran
    assert measured.not_run["grouped"] == "needs bf16, and these rows are torch.float32"
    assert measured.not_run["stacked"].startswith("needs every expert to see every row")


def test_grouped_runs_in_bf16():
    assert bench(Workload(**TINY, dtype="bf16"), rounds=1, backward=False).find_cost("grouped") is not None


def test_auto_is_one_of_those_that_ran(measured):
    assert measured.find_cost(measured.chosen.name) is not None


def test_work_by_hand(measured):
    expert_bytes = 4 * (8 * 16 + 16 + 16 * 8 + 8)
    expected = {
        "loop": (12 * 2 * 256, (4 - measured.idle) * expert_bytes, 4 * expert_bytes),
        "dense": (12 * 4 * 256, 4 * expert_bytes, 4 * expert_bytes),
        "gather": (12 * 2 * 256, 24 * expert_bytes, 4 * expert_bytes),
        ACTIVE: (12 * 2 * 256, expert_bytes, expert_bytes),
        PARAMETERS: (12 * 4 * 256, 4 * expert_bytes, 4 * expert_bytes),
        BARE: (12 * 2 * 256, (4 - measured.idle) * expert_bytes, 4 * expert_bytes),
    }
    for name, figures in expected.items():
        cost = measured.find_cost(name)
        assert (cost.multiply_adds, cost.read, cost.written) == figures, name


def test_both_modes_are_compared_with_both_dense_layers(measured):
    cost = measured.find_cost("sorted")
    for figures in (cost.times, cost.active, cost.parameters, cost.bare):
        assert list(figures) == ["forward", "forward+backward"]
    assert measured.find_cost(ACTIVE).active == {}
    assert cost.active["forward"].versus == ACTIVE


def test_forward_only():
    forward_only = bench(Workload(**TINY), rounds=1, backward=False)
    assert list(forward_only.find_cost("loop").times) == ["forward"]


def test_a_candidate_that_would_take_minutes_is_named_and_estimated():
    # With 40 experts of which one has a row: 40 times its work where all run.
    sparse = bench(Workload(dim=4, hidden=4, experts=40, k=1, rows=1000), rounds=1, backward=False)
    assert "40 times the work" in sparse.not_run["dense"]
    assert "it would read" in sparse.not_run["gather"]
    assert sparse.find_cost(PARAMETERS) is None
    assert sparse.estimated == pytest.approx(40 * sparse.find_cost(ACTIVE).times["forward"].value)
    assert "would take about" in verdict(sparse)


@pytest.mark.parametrize(
    ("active", "parameters", "beginning"),
    [
        (0.9, 4.0, "The sparse layer pays: a dense layer of equal active work takes 0.90 of the time"),
        (0.25, 2.0, "The sparse layer pays for its parameters, but 75% of its time is no expert's work"),
        (0.2, 0.8, "The sparse layer does not pay: "),
    ],
)
def test_the_verdict(measured, active, parameters, beginning):
    name, mode = measured.chosen.name, "forward+backward"
    cost = replace(
        measured.find_cost(name),
        active={mode: ratio_row(name, [1.0], ACTIVE, [active], "ms")},
        parameters={mode: ratio_row(name, [1.0], PARAMETERS, [parameters], "ms")},
    )
    sentence = verdict(replace(measured, costs=[cost]))
    assert sentence.startswith(beginning)
    assert f"one of equal parameters takes {parameters:.2f} of it" in sentence


def test_the_floor_is_bytes_by_bandwidth(measured):
    expert_bytes = 4 * (8 * 16 + 16 + 16 * 8 + 8)
    assert measured.floor["write"] == pytest.approx(1e3 * 4 * expert_bytes / measured.memory["write"])
    assert measured.floor["read"] == pytest.approx(1e3 * (4 - measured.idle) * expert_bytes / measured.memory["copy"])
