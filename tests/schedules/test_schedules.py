import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import find
from moebius.schedules import as_schedule
from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("schedules"))
def test_every_schedule(name, check):
    check()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
class TestRamps:
    @given(start=st.floats(-10, 10), end=st.floats(-10, 10), epochs=st.floats(0.1, 50), begin=st.floats(0, 20))
    def test_meet_both_ends_exactly_and_stay_between(self, kind, start, end, epochs, begin):
        schedule = find("schedules", kind)(start=start, end=end, epochs=epochs, begin=begin)
        assert schedule(0) == start
        assert schedule(begin) == start
        assert schedule(2 * (begin + epochs)) == end
        low, high = min(start, end), max(start, end)
        assert all(low - 1e-9 <= schedule(begin + share * epochs / 7) <= high + 1e-9 for share in range(8))

    def test_pass_the_middle_half_way(self, kind):
        assert find("schedules", kind)(start=1.0, end=3.0, epochs=4, begin=2)(4) == pytest.approx(2.0)

    @pytest.mark.parametrize(("name", "bad"), [("epochs", 0), ("epochs", -1), ("begin", -0.5)])
    def test_refuse_a_way_that_is_none(self, kind, name, bad):
        arguments = {"start": 1.0, "end": 0.0, "epochs": 1, "begin": 0} | {name: bad}
        with pytest.raises(ArgumentError, match=f"^{name}: ") as caught:
            find("schedules", kind)(**arguments)
        assert caught.value.fix


def test_linear_worked():
    schedule = find("schedules", "linear")(start=1.0, end=0.0, epochs=4, begin=1)
    assert [schedule(epoch) for epoch in (0, 1, 2, 3, 4, 5, 6)] == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_cosine_worked():
    schedule = find("schedules", "cosine")(start=2.0, end=0.0, epochs=3)
    assert [schedule(epoch) for epoch in range(4)] == pytest.approx([2.0, 1.5, 0.5, 0.0])


def test_step_worked():
    schedule = find("schedules", "step")(start=0.1, factor=0.1, every=10)
    assert [schedule(epoch) for epoch in (0, 9.99, 10, 25)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_step_meets_the_edge_of_a_broken_stair():
    assert find("schedules", "step")(start=1.0, factor=0.5, every=0.1)(0.3) == 0.125


@pytest.mark.parametrize(("name", "bad"), [("factor", 0), ("factor", -0.5), ("every", 0)])
def test_step_refuses_what_is_no_stair(name, bad):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        find("schedules", "step")(**{"start": 1.0, "factor": 0.5, "every": 1} | {name: bad})


class TestAsSchedule:
    def test_a_number_is_a_constant(self):
        assert as_schedule(3) == find("schedules", "constant")(3)

    def test_a_mapping_is_built(self):
        assert as_schedule({"kind": "step", "start": 1.0, "factor": 0.5, "every": 1})(1) == 0.5

    def test_a_callable_is_kept(self):
        assert as_schedule(math.sqrt) is math.sqrt

    def test_a_mapping_without_kind_is_refused_with_the_kinds(self):
        with pytest.raises(ArgumentError, match="needs a kind") as caught:
            as_schedule({"start": 1.0})
        assert "cosine" in str(caught.value)

    def test_an_unknown_kind_is_refused_with_the_closest(self):
        with pytest.raises(UnknownKindError, match="cosine"):
            as_schedule({"kind": "cosin", "start": 1.0, "end": 0.0, "epochs": 3})
