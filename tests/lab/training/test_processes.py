"""What two processes learn together is what one learns alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("several_processes.py")
COUNTS = (1, 2)
QUICK = ("top-2", "unlike", "sparse tree", "accumulated")
REST = (
    *("cohort", "list", "stack", "tree", "heads", "inside", "bias", "no gate"),
    *("best expert", "clipped", "penalised", "late gate", "annealed"),
)
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)]


@pytest.fixture(scope="module")
def results_of(tmp_path_factory):
    """Name of a case → number of processes → the results of each process, by name; the quick cases run at once."""
    trained = {}

    def train(names):
        folder = tmp_path_factory.mktemp("processes")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        running = [
            subprocess.Popen(
                [sys.executable, *([] if count == 1 else [*launcher, str(count)]), str(SCRIPT), str(folder), *names],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for count in COUNTS
        ]
        try:
            texts = [process.communicate(timeout=300)[0] for process in running]
        finally:
            for process in running:
                process.terminate()  # torchrun ends its processes
        assert not any(process.returncode for process in running), "\n".join(texts)
        return {count: [torch.load(folder / f"{count}-{rank}.pt") for rank in range(count)] for count in COUNTS}

    def results(name):
        names = QUICK if name in QUICK else REST
        if names not in trained:
            trained[names] = train(names)
        return trained[names]

    return results


def compare(actual, expected, tolerance, name):
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_has_the_gradients_of_one_process(results_of, name):
    """In float64, of every parameter, outputs and figures: one step of gradient descent is as long as the gradient."""
    results = results_of(name)
    for together in results[2]:
        compare(together[f"one step: {name}"], results[1][0][f"one step: {name}"], 1e-12, name)


@pytest.mark.parametrize("name", NAMES)
def test_many_steps_end_in_the_weights_of_one_process(results_of, name):
    """In float32, with a last batch of one row, so that the second process has none."""
    results = results_of(name)
    for together in results[2]:
        compare(together[f"to the end: {name}"], results[1][0][f"to the end: {name}"], 2e-5, name)


@pytest.mark.parametrize("name", NAMES)
def test_processes_end_with_equal_bits(results_of, name):
    first, second = results_of(name)[2]
    for kind in ("one step", "to the end"):
        compare(first[f"{kind}: {name}"], second[f"{kind}: {name}"], 0, name)
