import pytest

from moebius.lab.training.timing import Timing


def test_seconds_before_an_interruption(tmp_path):
    timing = Timing(tmp_path)
    timing.log(1, 2.5, 100.0)
    assert timing.before(1) == 2.5


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_epoch_whose_time_was_not_written_has_taken_none(tmp_path, epochs):
    timing = Timing(tmp_path)
    for epoch in range(epochs):
        timing.log(epoch + 1, 2.5, 100.0)
    assert isinstance(timing.before(2), float)
    assert timing.before(2) == 0
