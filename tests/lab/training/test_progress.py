"""What a terminal, a file and the log show of a training."""

import io
import logging
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from torch import nn

import moebius as mb
from moebius.lab.training.outcome import Event
from moebius.lab.training.progress import ProgressDisplay

STEP = Event("step", 2, 15, 30, score=0.5, loss=0.75)
EPOCH = Event("epoch", 2, 20, 30, score=0.625, loss=0.5, validation_score=0.875, test_score=0.25)


def shown(events, is_shown=True, **console):
    text = io.StringIO()
    display = ProgressDisplay(3, is_shown, Console(file=text, width=120, color_system=None, **console))
    with display:
        for event in events:
            display.show(event)
        if display.bar is not None:
            display.bar.refresh()
            frame = text.getvalue()
            return frame, display, text
    return text.getvalue(), display, text


def test_a_terminal_has_a_bar_and_keeps_one_line():
    frame, _, text = shown([STEP], force_terminal=True)
    assert "epoch 2/3" in frame
    assert "train accuracy 0.500, loss 0.750" in frame
    frame, _, text = shown([STEP, EPOCH], force_terminal=True)
    line = "epoch 2/3 · train accuracy 0.625, loss 0.500 · validation accuracy 0.875 · test accuracy 0.250"
    last = text.getvalue().splitlines()[-1]
    assert last.endswith(" s")
    assert line in last


def test_figures_of_the_last_epoch_stay_in_view():
    frame, _, _ = shown([EPOCH, Event("step", 3, 25, 30, score=0.7, loss=0.4)], force_terminal=True)
    assert "train accuracy 0.700, loss 0.400 · validation accuracy 0.875" in frame


@pytest.mark.parametrize(("is_shown", "terminal"), [(False, True), (True, False), (False, False)])
def test_elsewhere_and_when_asked_to_nothing_is_printed(is_shown, terminal):
    frame, _, _ = shown([STEP, EPOCH], is_shown, force_terminal=terminal)
    assert frame == ""


def test_epochs_go_to_the_log(caplog):
    with caplog.at_level(logging.INFO, "moebius"):
        shown([STEP, EPOCH, Event("note", 1, 0, 3, text="[2 parts]")], is_shown=False)
    line = "epoch 2/3 · train accuracy 0.625, loss 0.500 · validation accuracy 0.875 · test accuracy 0.250"
    assert caplog.messages == [line, "[2 parts]"]


def test_fit_prints_nothing_where_no_terminal_is(capfd):
    x = torch.randn(40, 4)
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    mb.fit(moe, (x, (x[:, 0] > 0).long()), epochs=2)
    assert tuple(capfd.readouterr()) == ("", "")


SCRIPT = """
import torch, moebius as mb
x = torch.randn(40, 4)
moe = mb.Mixture(mb.gates.Linear(4, 2), [torch.nn.Linear(4, 2) for _ in range(2)])
mb.fit(moe, (x, (x[:, 0] > 0).long()), epochs=2, on_epoch=lambda moment: print("epoch", moment.epoch), progress=%s)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("progress", [True, False])
def test_a_real_terminal_shows_it_and_what_callbacks_print_stays_in_its_file(progress):
    import pty

    terminal, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", SCRIPT % progress]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, env=environment, text=True, timeout=120)
    os.close(child)
    text = ""
    try:
        while piece := os.read(terminal, 65536).decode(errors="replace"):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert run.returncode == 0, text
    assert run.stdout == "epoch 1\nepoch 2\n"
    assert ("epoch 2/2 · train accuracy" in text) == progress
    assert progress or text == ""
