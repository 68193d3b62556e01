"""What two processes learn together is what one learns alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("several_processes.py")
COUNTS = (1, 2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Number of processes → the results of each process, by name."""
    folder = tmp_path_factory.mktemp("processes")
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(count), str(rank), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for count in COUNTS
        for rank in range(count)
    ]
    try:
        texts = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), "\n".join(texts)
    return {
        count: [torch.load(folder / f"{count}-{rank}.pt", weights_only=False) for rank in range(count)]
        for count in COUNTS
    }


def test_the_first_step_has_the_gradients_of_one_process(results):
    """In float64, of every model and objective; the step is as long as the gradient."""
    (alone,) = results[1]
    names = [name for name in alone if name.startswith("first ")]
    assert len(names) > 15
    for together in results[2]:
        for name in names:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-12, atol=1e-12, equal_nan=True, msg=name)


def test_many_steps_end_in_the_weights_of_one_process(results):
    """In float32, with a last batch of one row, so that the second process has none."""
    (alone,) = results[1]
    names = [name for name in alone if name.startswith("long ")]
    assert len(names) > 15
    for together in results[2]:
        for name in names:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)


def test_processes_end_with_equal_bits(results):
    first, second = results[2]
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True, msg=name)
