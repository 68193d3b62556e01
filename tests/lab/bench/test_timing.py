import pytest

from moebius.lab.bench.timing import alone, beside, compare, in_turn, seconds


def test_every_second_round_goes_backwards_and_the_first_does_not_count():
    order = []
    candidates = {name: lambda name=name: order.append(name) for name in "abc"}
    calls = in_turn(candidates, rounds=2)
    assert "".join(order) == "abccbaabc"
    assert {name: len(each) for name, each in calls.items()} == {"a": 2, "b": 2, "c": 2}


def test_what_a_candidate_gives_stands_beside_its_time():
    calls = in_turn({"three": lambda: 3}, rounds=1)
    assert [given for _, given in calls["three"]] == [3]
    assert seconds(calls)["three"][0] >= 0


def test_waits_before_each_look_at_the_clock():
    events = []
    in_turn({"a": lambda: events.append("call")}, rounds=1, wait=lambda: events.append("wait"), uncounted=0)
    assert events == ["wait", "call", "wait"]


def test_the_ratio_is_taken_within_rounds():
    # The machine was ten times slower in the second round: the medians would say 10 / 2, the rounds say 0.5 and 1.
    row = beside("a", [1.0, 10.0, 1.0], "b", [2.0, 20.0, 1.0], "ms")
    assert (row.value, row.ratio, row.spread) == (1.0, 0.5, (0.5, 1.0))


def test_rows_alone_then_pairs():
    rows = compare({"a": [2.0], "b": [4.0]}, [("a", "b"), ("a", "missing")], "ms", "x, ")
    assert rows == [
        alone("x, a", [2.0], "ms"),
        alone("x, b", [4.0], "ms"),
        beside("x, a", [2.0], "x, b", [4.0], "ms"),
    ]
    assert rows[-1].ratio == pytest.approx(0.5)
