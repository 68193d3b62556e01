"""Of two processes that train together one is killed."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("lost_process.py")


def test_the_other_process_ends_with_an_error_and_one_process_goes_on(tmp_path):
    """Figures of all epochs are those of one process that nothing interrupts."""
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        text, _ = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [1, -signal.SIGKILL], text
    assert "a process that trains the same model has ended" in text
    assert "Traceback" not in text
    folder = tmp_path / "run"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert not [path for path in folder.rglob("*") if "tmp" in path.name]
    train = runpy.run_path(str(SCRIPT))["train"]
    for after, alone in zip(train(folder), train(tmp_path / "alone"), strict=True):
        for split in ("train", "validation"):
            assert after[split]["loss"] == pytest.approx(alone[split]["loss"], rel=1e-9)
