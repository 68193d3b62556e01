import pytest

from moebius.lab.report.numbers import bracket, duration, rate, with_interval
from moebius.lab.statistics.interval import interval


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0005, ".001"), (0.0004, "4e-04"), (0.9999, "1.000"), (1.25, "1.250"), (-3e-9, "−3e-09"), (float("nan"), "–")],
)
def test_rates(value, text):
    assert rate(value) == text


def test_one_seed_has_no_bracket():
    assert bracket(interval([0.5])) == ""
    assert with_interval(interval([0.5])) == ".500"


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "60 s"), (119.7, "2 min 0 s"), (3600, "1 h 0 min"), (None, "–")])
def test_durations(seconds, text):
    assert duration(seconds) == text
