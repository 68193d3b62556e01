import math
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from moebius.kit.errors import TrainingError
from moebius.lab.study.display import Display
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event

RUN = RunSpec("linear", 1, Path("seed-1"), {}, {"epochs": 3}, "")


def shown(terminal: bool, *events: Event) -> tuple[str, StringIO]:
    text = StringIO()
    console = Console(force_terminal=terminal, file=text, width=110, color_system=None)
    with Display(console, total=4, done=1) as display:
        for event in events:
            display.show(RUN, event)
        if display.live is not None:
            display.live.refresh()  # it draws eight times a second, and these events take no time
        display.finish(RUN)
    return text.getvalue(), text


STEP = Event("step", 1, 10, 30, 0.5, 1.25, 12345.6)
EPOCH = Event("epoch", 2, 20, 30, 0.625, 1.125, 2345.6, test_score=0.75)


def test_plain_lines_hold_all_figures():
    text, _ = shown(False, STEP, EPOCH)
    assert re.fullmatch(
        r"linear/seed-1 epoch 2/3 · train accuracy 0\.625 loss 1\.125 · 2,346 images/s · test 0\.750 · \d+:\d\d left\n"
        r"finished linear/seed-1, 2 of 4 runs\n",
        text,
    )


def test_where_rows_are_held_out_lines_show_them_and_no_test_row():
    text, _ = shown(False, replace(EPOCH, validation_score=0.5))
    assert "· held out 0.500 ·" in text
    assert "test" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_that_fails_is_named_at_once(terminal):
    text = StringIO()
    console = Console(force_terminal=terminal, file=text, width=110, color_system=None)
    with Display(console, total=4, done=1) as display:
        display.show(RUN, STEP)
        display.fail(RUN, TrainingError("epoch 1, step 11: cross_entropy is not a finite number", "a smaller lr"))
        assert "failed linear/seed-1: epoch 1, step 11: cross_entropy is not a finite number" in text.getvalue()
        assert not display.bars


@pytest.mark.parametrize("terminal", [False, True])
def test_says_where_a_run_was_resumed(terminal):
    text, _ = shown(terminal, Event("resumed", 2, 17, 30))
    assert "resumed linear/seed-1 at epoch 2 step 17\n" in text


def test_a_run_resumed_after_its_last_step_names_the_last_epoch():
    text, _ = shown(False, Event("resumed", 4, 30, 30))
    assert text.startswith("resumed linear/seed-1 at epoch 3 step 30\n")


def test_a_terminal_shows_bars():
    text, _ = shown(True, STEP, EPOCH)
    assert "linear/seed-1" in text
    assert "epoch 2/3 · accuracy 0.625 loss 1.125 · 2,346 images/s" in text
    assert "━" in text
    assert "1 of 4 runs" in text
    assert "2 of 4 runs" in text
    assert re.search(r"\d+:\d\d left", text)


def test_no_rate_and_no_time_left_before_there_is_one():
    text, _ = shown(True, Event("resumed", 2, 17, 30))
    assert "–:–– left" in text
    assert "nan images/s" not in text
    assert "nan" not in shown(False, Event("epoch", 1, 10, 30, 0.5, 1.0, math.nan, 0.5))[0]


COHORT = [RunSpec("linear", seed, Path(f"seed-{seed}"), {}, {"epochs": 3}, "") for seed in range(3)]


def test_a_cohort_has_one_bar_with_the_mean_of_its_runs():
    text = StringIO()
    console = Console(force_terminal=True, file=text, width=110, color_system=None)
    with Display(console, total=4, done=0, cohorts=[COHORT]) as display:
        for run, accuracy in zip(COHORT, (0.5, 0.6, 0.7), strict=True):
            display.show(run, Event("step", 1, 10, 30, accuracy, 1.25, 12345.6))
        display.live.refresh()
        assert "linear/seed-0 and 2 more" in text.getvalue()
        assert "epoch 1/3 · mean accuracy 0.600 loss 1.250 · 12,346 images/s" in text.getvalue()
        display.finish(COHORT[1])
        display.fail(COHORT[0], TrainingError("no finite number"))
        assert list(display.bars) == ["linear/seed-0 and 2 more"]
        display.show(COHORT[2], Event("step", 1, 20, 30, 0.75, 1.25, 12345.6))
        display.live.refresh()
        assert "epoch 1/3 · accuracy 0.750 loss 1.250" in text.getvalue()
        display.finish(COHORT[2])
        assert not display.bars
