import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moebius.lab.training.settings import Plateau, Watch
from moebius.lab.training.watch_state import WatchState, watch_state

VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=12)
PLATEAUS = [None, *(Plateau(patience=patience, factor=factor) for patience in (1, 2, 3) for factor in (0.5, 0.25))]
WATCHES = st.sampled_from(
    [
        Watch(measure=measure, patience=patience, plateau=plateau, above=above, restart=restart)
        for measure, patience, plateau, above, restart in itertools.product(
            ("accuracy", "loss"), (None, 1, 2, 3, 4), PLATEAUS, (None, 0.15, 0.35), (False, True)
        )
    ]
)


@pytest.mark.parametrize(
    ("values", "watch", "verdict"),
    [
        # No epoch yet, and rules that never come to bear.
        ([], Watch(patience=1, plateau=Plateau(patience=1)), WatchState(None, 0, False)),
        ([0.5, 0.4, 0.3], Watch(), WatchState(1, 0, False)),
        # Better is strictly better: an equal epoch is idle, the first of the equals stays the best.
        ([0.5, 0.7, 0.7], Watch(patience=2), WatchState(2, 0, False)),
        ([0.5, 0.7, 0.7, 0.6], Watch(patience=2), WatchState(2, 0, True)),
        ([0.5, 0.6, 0.4, 0.7, 0.3], Watch(patience=2), WatchState(4, 0, False)),
        # A smaller loss is better.
        ([0.9, 0.5, 0.6], Watch(measure="loss", patience=1), WatchState(2, 0, True)),
        ([0.5, 0.4, 0.3], Watch(measure="loss", patience=1), WatchState(3, 0, False)),
        # Rates fall after `patience` idle epochs and then after as many again; progress does not raise them.
        ([0.5, 0.4], Watch(plateau=Plateau(patience=2, factor=0.1)), WatchState(1, 0, False)),
        ([0.5, 0.4, 0.4], Watch(plateau=Plateau(patience=2, factor=0.1)), WatchState(1, 1, False)),
        ([0.5, 0.4, 0.4, 0.4], Watch(plateau=Plateau(patience=2, factor=0.5)), WatchState(1, 1, False)),
        ([0.5, 0.4, 0.4, 0.4, 0.4], Watch(plateau=Plateau(patience=2, factor=0.5)), WatchState(1, 2, False)),
        ([0.5, 0.4, 0.4, 0.6, 0.5], Watch(plateau=Plateau(patience=2, factor=0.5)), WatchState(4, 1, False)),
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], Watch(plateau=Plateau(patience=2, factor=0.5)), WatchState(5, 0, False)),
        # A fall of the rates does not put off the end.
        ([0.5, 0.4, 0.4, 0.4], Watch(patience=3, plateau=Plateau(patience=2, factor=0.5)), WatchState(1, 1, True)),
        # Nothing is best that is no better than `above`, which itself is not enough.
        ([0.5, 0.8], Watch(above=0.8), WatchState(None, 0, False)),
        ([0.5, 0.81, 0.6], Watch(above=0.8), WatchState(2, 0, False)),
        ([0.9, 0.5], Watch(measure="loss", above=0.5), WatchState(None, 0, False)),
        ([0.9, 0.4], Watch(measure="loss", above=0.5), WatchState(2, 0, False)),
        ([0.5, 0.6, 0.7], Watch(above=0.8, patience=1), WatchState(None, 0, False)),  # it gets better all the time
        ([0.5, 0.6, 0.6], Watch(above=0.8, patience=1), WatchState(None, 0, True)),
        ([0.5, 0.6, 0.9], Watch(above=0.8, patience=3), WatchState(3, 0, False)),
        # Rates fall while nothing is good enough, even if it gets better all the time.
        ([0.5, 0.6, 0.7, 0.75], Watch(above=0.8, plateau=Plateau(patience=2)), WatchState(None, 2, False)),
        ([0.5, 0.81, 0.6, 0.82], Watch(above=0.8, plateau=Plateau(patience=2)), WatchState(4, 0, False)),
    ],
)
def test_worked_by_hand(values, watch, verdict):
    assert watch_state(values, watch) == verdict


def test_no_measure_is_better_than_the_worst_there_is():
    assert watch_state([float("inf")], Watch(measure="loss")).best is None
    assert watch_state([float("nan"), 0.5, float("nan")], Watch(measure="loss", patience=1)) == WatchState(2, 0, True)


@given(VALUES, WATCHES)
def test_the_best_is_the_first_of_the_extremes(values, watch):
    accuracy = watch.measure == "accuracy"
    beyond = [v for v in values if watch.above is None or (v > watch.above if accuracy else v < watch.above)]
    best = watch_state(values, watch).best
    if not beyond:
        assert best is None
    else:
        assert best == 1 + values.index(max(beyond) if accuracy else min(beyond))


@given(VALUES, WATCHES)
def test_loss_is_accuracy_turned_around(values, watch):
    turned = {"accuracy": "loss", "loss": "accuracy"}[watch.measure]
    above = None if watch.above is None else -watch.above
    other = watch.model_copy(update={"measure": turned, "above": above})
    assert watch_state([-value for value in values], other) == watch_state(values, watch)


@given(VALUES, VALUES, WATCHES)
def test_what_comes_later_changes_no_verdict_on_what_was(earlier, later, watch):
    before, after = watch_state(earlier, watch), watch_state([*earlier, *later], watch)
    assert watch_state(list(earlier), watch) == before  # of the history alone
    assert after.falls >= before.falls
    if after.best is not None and after.best <= len(earlier):
        assert after.best == before.best
    if before.best is None:
        assert after.best is None or after.best > len(earlier)


@given(VALUES, WATCHES)
def test_training_ends_exactly_patience_epochs_after_the_last_better_one(values, watch):
    any_is_best = watch.model_copy(update={"above": None})
    for count in range(len(values) + 1):
        idle = count - (watch_state(values[:count], any_is_best).best or 0)
        ends = watch_state(values[:count], watch).ends
        assert ends == (watch.patience is not None and idle >= watch.patience)


@given(VALUES, WATCHES)
def test_restart_is_no_matter_of_the_verdict(values, watch):
    assert watch_state(values, Watch(**{**dict(watch), "restart": not watch.restart})) == watch_state(values, watch)


def test_the_rate_that_falls_may_be_one_for_all_parts():
    own, common = Plateau(patience=4), Plateau(patience=4, start=1e-3, least=2e-4)
    for rate in (1e-3, 5e-4, 1e-4):
        assert [own.fallen(rate, falls) for falls in range(3)] == [rate, rate / 2, rate / 4]
    # As the authors of study 3: the first fall gives every variant 5e-4, whatever it had.
    assert [common.fallen(1e-4, falls) for falls in range(4)] == [1e-4, 5e-4, 2.5e-4, 2e-4]
    assert common.fallen(1e-5, 0) == 1e-5  # the least rate raises none
