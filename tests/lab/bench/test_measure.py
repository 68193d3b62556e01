from dataclasses import replace

import pytest

from moebius.kit.registry import kinds
from moebius.lab.bench import Problem, bench
from moebius.lab.bench.measure import ACTIVE, PARAMETERS, verdict
from moebius.lab.bench.timing import beside

TINY = {"dim": 8, "hidden": 16, "experts": 4, "k": 2, "rows": 12}


@pytest.fixture(scope="module")
def measured():
    return bench(Problem(**TINY), rounds=2)


def test_every_execution_ran_or_has_a_reason(measured):
    ran = {cost.name for cost in measured.costs} - {ACTIVE, PARAMETERS}
    assert ran | set(measured.not_run) == set(kinds("execution")) - {"auto"}
    assert not ran & set(measured.not_run)
    assert {"loop", "sorted", "dense", "gather"} <= ran
    assert measured.not_run["grouped"] == "needs bf16, and these rows are torch.float32"
    assert measured.not_run["stacked"].startswith("needs every expert to see every row")


def test_grouped_runs_in_bf16():
    assert bench(Problem(**TINY, dtype="bf16"), rounds=1, backward=False).cost("grouped") is not None


def test_auto_is_one_of_those_that_ran(measured):
    assert measured.cost(measured.chosen.name) is not None


def test_work_by_hand(measured):
    one = 4 * (8 * 16 + 16 + 16 * 8 + 8)
    expected = {
        "loop": (12 * 2 * 256, (4 - measured.idle) * one, 4 * one),
        "dense": (12 * 4 * 256, 4 * one, 4 * one),
        "gather": (12 * 2 * 256, 24 * one, 4 * one),
        ACTIVE: (12 * 2 * 256, one, one),
        PARAMETERS: (12 * 4 * 256, 4 * one, 4 * one),
    }
    for name, figures in expected.items():
        cost = measured.cost(name)
        assert (cost.multiply_adds, cost.read, cost.written) == figures, name


def test_both_measurements_stand_beside_both_dense_layers(measured):
    cost = measured.cost("sorted")
    for figures in (cost.times, cost.active, cost.parameters):
        assert list(figures) == ["forward", "forward+backward"]
    assert measured.cost(ACTIVE).active == {}
    assert cost.active["forward"].versus == ACTIVE


def test_forward_only():
    found = bench(Problem(**TINY), rounds=1, backward=False)
    assert list(found.cost("loop").times) == ["forward"]


def test_what_would_take_minutes_is_named_and_estimated():
    # With 40 experts of which one has a row: 40 times its work where all run.
    found = bench(Problem(dim=4, hidden=4, experts=40, k=1, rows=1000), rounds=1, backward=False)
    assert "40 times the work" in found.not_run["dense"]
    assert "it would read" in found.not_run["gather"]
    assert found.cost(PARAMETERS) is None
    assert found.estimated == pytest.approx(40 * found.cost(ACTIVE).times["forward"].value)
    assert "would take about" in verdict(found)


@pytest.mark.parametrize(
    ("active", "parameters", "begin"),
    [
        (0.9, 4.0, "The sparse layer pays: a dense layer of equal active work takes 0.90 of the time"),
        (0.25, 2.0, "The sparse layer pays for its parameters, but 75% of its time is no expert's work"),
        (0.2, 0.8, "The sparse layer does not pay: "),
    ],
)
def test_the_verdict(measured, active, parameters, begin):
    name, mode = measured.chosen.name, "forward+backward"
    ours = replace(
        measured.cost(name),
        active={mode: beside(name, [1.0], ACTIVE, [active], "ms")},
        parameters={mode: beside(name, [1.0], PARAMETERS, [parameters], "ms")},
    )
    sentence = verdict(replace(measured, costs=[ours]))
    assert sentence.startswith(begin)
    assert f"one of equal parameters takes {parameters:.2f} of it" in sentence


def test_the_floor_is_bytes_by_bandwidth(measured):
    one = 4 * (8 * 16 + 16 + 16 * 8 + 8)
    assert measured.floor["write"] == pytest.approx(1e3 * 4 * one / measured.memory["write"])
    assert measured.floor["read"] == pytest.approx(1e3 * (4 - measured.idle) * one / measured.memory["copy"])
