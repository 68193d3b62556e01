"""A loss does not depend on how many processes share its rows, nor on how the rows are split between them."""

import runpy
from pathlib import Path

import pytest
import torch

from moebius.kit.registry import kinds

# A script of its own, since a test module has no name that another process could import it by.
SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def results_of_processes(tmp_path_factory, two_at_once):
    """For each process, and for each split of the rows, the results of all losses."""
    folder = tmp_path_factory.mktemp("processes")
    two_at_once(SCRIPT, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def results_alone():
    return runpy.run_path(str(SCRIPT))["results"]()


@pytest.mark.parametrize("kind", kinds("losses"))
def test_values_and_gradients_are_those_of_one_process_with_all_rows(kind, results_of_processes, results_alone):
    for splits in results_of_processes:
        for results in splits:
            torch.testing.assert_close(results[kind], results_alone[kind])


@pytest.mark.parametrize("kind", kinds("losses"))
def test_the_rows_of_one_process_alone_would_give_another_value(kind, results_alone):
    part = runpy.run_path(str(SCRIPT))["results"](slice(0, 5))
    assert not torch.isclose(part[kind][0], results_alone[kind][0], rtol=1e-3)
