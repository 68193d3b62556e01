"""What several processes learn together is what one learns alone.

`python tests/lab/training/test_processes.py FOLDER` trains all cases in FOLDER and prints the largest differences;
docs/distributed.md shows them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

SCRIPT = Path(__file__).with_name("several_processes.py")
QUICK = ("top-2", "unlike", "sparse tree", "accumulated")
REST = (
    *("cohort", "list", "stack", "tree", "heads", "inside", "bias", "no gate"),
    *("best expert", "clipped", "penalised", "late gate", "annealed"),
)
RUNS = [
    *((name, 2) for name in QUICK),
    *(pytest.param(name, 2, marks=pytest.mark.thorough) for name in REST),
    *(pytest.param(name, 4, marks=pytest.mark.thorough) for name in (*QUICK, *REST)),
]
runs = pytest.mark.parametrize(("name", "count"), RUNS)
# The first step in float64, and the weights at the end in float32.
TOLERANCE = {"one step": 1e-12, "to the end": 1e-6}


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--num_processes"),
)


def train(folder, names, count, launcher=TORCHRUN):
    """The results of each process."""
    launcher = [] if count == 1 else [*launcher, str(count)]
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(folder), *names],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert not done.returncode, done.stdout
    return [torch.load(folder / f"{count}-{rank}.pt") for rank in range(count)]


@pytest.fixture(scope="module")
def results_of(tmp_path_factory):
    """Name of a case, number of processes → the results of each process, by name; the quick cases run at once."""
    trained = {}

    def results(name, count):
        names = QUICK if name in QUICK else REST
        if (names, count) not in trained:
            trained[names, count] = train(tmp_path_factory.mktemp("processes"), names, count)
        return trained[names, count]

    return results


def compare(actual, expected, tolerance, name):
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


@runs
@pytest.mark.parametrize("kind", TOLERANCE)
def test_processes_learn_what_one_learns(results_of, name, count, kind):
    """Weights, outputs, losses, gates and figures.

    One step of gradient descent, with all rows, is as long as the gradient. To the end are many steps, with a last
    batch of one row, so that processes have none.
    """
    (alone,) = results_of(name, 1)
    for together in results_of(name, count):
        compare(together[f"{kind}: {name}"], alone[f"{kind}: {name}"], TOLERANCE[kind], name)


@runs
def test_processes_end_with_equal_bits(results_of, name, count):
    first, *others = results_of(name, count)
    for other in others:
        for kind in TOLERANCE:
            compare(other[f"{kind}: {name}"], first[f"{kind}: {name}"], 0, name)


@pytest.mark.thorough
def test_accelerate_starts_them_too(results_of, tmp_path):
    pytest.importorskip("accelerate")
    results = train(tmp_path, ["top-2"], 2, ACCELERATE)
    for kind in TOLERANCE:
        name = f"{kind}: top-2"
        compare([each[name] for each in results], [each[name] for each in results_of("top-2", 2)], 0, name)


def largest_difference(actual, expected):
    """The largest difference of all numbers, of tensors relative to their largest value where this is above 1."""
    if isinstance(expected, dict):
        return max((largest_difference(actual[key], value) for key, value in expected.items()), default=0.0)
    if isinstance(expected, list | tuple):
        return max((largest_difference(*pair) for pair in zip(actual, expected, strict=True)), default=0.0)
    if isinstance(expected, Tensor):
        if not expected.numel():
            return 0.0
        difference = (actual.double() - expected.double()).abs().nan_to_num(0.0).max().item()
        return difference / max(1.0, expected.double().abs().nan_to_num(0.0).max().item())
    return abs(actual - expected) if isinstance(expected, float) else 0.0


def print_differences(folder):
    names = (*QUICK, *REST)
    (alone,) = train(folder, names, 1)
    for count in (2, 4):
        together = train(folder, names, count)
        for kind in TOLERANCE:
            pairs = [(each[f"{kind}: {name}"], alone[f"{kind}: {name}"]) for each in together for name in names]
            for key in ("weights", "outputs", "metrics"):
                parts = [(of_all[key], of_one[key]) for of_all, of_one in pairs if isinstance(of_one, dict)]
                print(f"{count} processes, {kind}, {key}: {max(largest_difference(*part) for part in parts):.0e}")
            cohorts = [pair for pair in pairs if isinstance(pair[1], list)]
            print(f"{count} processes, {kind}, cohort: {max(largest_difference(*pair) for pair in cohorts):.0e}")


if __name__ == "__main__":
    print_differences(Path(sys.argv[1]))
