"""A loss does not depend on how many processes share its rows, nor on how they share them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moebius.registry import kinds

# A script of its own, since a test module has no name that another process could import it by.
SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """For each process, for each way to split the rows, the results of all losses."""
    folder = tmp_path_factory.mktemp("processes")
    commands = [[sys.executable, str(SCRIPT), str(rank), str(folder)] for rank in range(2)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(one, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for one in commands
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return runpy.run_path(str(SCRIPT))["results"]()


@pytest.mark.parametrize("kind", kinds("losses"))
def test_values_and_gradients_are_those_of_one_process_with_all_rows(kind, both, alone):
    for process in both:
        for split in process:
            torch.testing.assert_close(split[kind], alone[kind])


@pytest.mark.parametrize("kind", kinds("losses"))
def test_the_rows_of_one_process_alone_would_give_something_else(kind, alone):
    part = runpy.run_path(str(SCRIPT))["results"](slice(0, 5))
    assert not torch.isclose(part[kind][0], alone[kind][0], rtol=1e-3)
