"""Processes that train together are killed, one or all, and as many or others go on."""

import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from launching import launched

sys.path.pop(0)

SCRIPT = Path(__file__).with_name("lost_process.py")
KILLED = -signal.SIGKILL


def train(count, dropout, killed, *folders):
    return launched(SCRIPT, count, [str(dropout), killed, *map(str, folders)])


def train_here(folder, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    runpy.run_path(str(SCRIPT))["train"](folder, 0.0)
    return outcome(folder)


def outcome(folder):
    """Weights, and the metrics of each epoch."""
    return torch.load(folder.with_suffix(".pt"))


def check_nothing_is_half_written(folder):
    assert not [path for path in folder.rglob("*") if "tmp" in path.name]


def test_the_other_process_ends_with_an_error_and_one_process_goes_on(tmp_path, monkeypatch):
    """Weights and figures of all epochs are those of one process that nothing interrupts, to rounding."""
    folder = tmp_path / "run"
    first, second = train(2, 0.0, "1", folder)
    assert (first.returncode, second.returncode) == (1, KILLED), first.stdout
    assert "a process that trains the same model has ended" in first.stdout
    assert "run the same command again" in first.stdout
    assert "Traceback" not in first.stdout
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    check_nothing_is_half_written(folder)
    after, alone = (train_here(tmp_path / name, monkeypatch) for name in ("run", "alone"))
    torch.testing.assert_close(after, alone, rtol=1e-9, atol=1e-9)


def test_as_many_processes_go_on_with_the_same_bits(tmp_path):
    """Also of random numbers that the model draws, in the middle of an epoch."""
    assert [process.returncode for process in train(2, 0.5, "0,1", tmp_path / "run")] == [KILLED, KILLED]
    check_nothing_is_half_written(tmp_path / "run")
    ended = train(2, 0.5, "none", tmp_path / "run", tmp_path / "unkilled")
    assert not any(process.returncode for process in ended), ended[0].stdout
    torch.testing.assert_close(outcome(tmp_path / "run"), outcome(tmp_path / "unkilled"), rtol=0, atol=0)


@pytest.mark.thorough
def test_what_four_processes_began_two_and_one_end(tmp_path, monkeypatch):
    ended = train(4, 0.0, "0,1,2,3", tmp_path / "run")
    assert [process.returncode for process in ended] == [KILLED] * 4, os.linesep.join(each.stdout for each in ended)
    shutil.copytree(tmp_path / "run", tmp_path / "two")
    assert not any(process.returncode for process in train(2, 0.0, "none", tmp_path / "two"))
    alone = train_here(tmp_path / "alone", monkeypatch)
    for after in (outcome(tmp_path / "two"), train_here(tmp_path / "run", monkeypatch)):
        torch.testing.assert_close(after, alone, rtol=1e-9, atol=1e-9)
