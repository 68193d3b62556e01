import pytest

from moebius.lab.bench.timing import comparison_rows, durations, ratio_row, time_in_turn, value_row


def test_every_second_round_goes_backwards_and_the_first_does_not_count():
    order = []
    candidates = {name: lambda name=name: order.append(name) for name in "abc"}
    calls = time_in_turn(candidates, rounds=2)
    assert "".join(order) == "abccbaabc"
    assert {name: len(pairs) for name, pairs in calls.items()} == {"a": 2, "b": 2, "c": 2}


def test_each_call_has_its_time_and_its_value():
    calls = time_in_turn({"three": lambda: 3}, rounds=1)
    assert [value for _, value in calls["three"]] == [3]
    assert durations(calls)["three"][0] >= 0


def test_waits_before_each_look_at_the_clock():
    events = []
    time_in_turn({"a": lambda: events.append("call")}, rounds=1, wait=lambda: events.append("wait"), uncounted=0)
    assert events == ["wait", "call", "wait"]


def test_the_ratio_is_taken_within_rounds():
    # The machine was ten times slower in the second round: the medians of the values would hide
    # the ratios of the rounds, 0.5, 0.5 and 1.
    row = ratio_row("a", [1.0, 10.0, 1.0], "b", [2.0, 20.0, 1.0], "ms")
    assert (row.value, row.ratio, row.spread) == (1.0, 0.5, (0.5, 1.0))


def test_the_rows_of_candidates_come_before_those_of_pairs():
    rows = comparison_rows({"a": [2.0], "b": [4.0]}, [("a", "b"), ("a", "missing")], "ms", "x, ")
    assert rows == [
        value_row("x, a", [2.0], "ms"),
        value_row("x, b", [4.0], "ms"),
        ratio_row("x, a", [2.0], "x, b", [4.0], "ms"),
    ]
    assert rows[-1].ratio == pytest.approx(0.5)
