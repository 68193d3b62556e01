"""Models on 2 and 4 processes compute what one process computes on the rows of all, every gradient included.

`python tests/distributed/test_expert_parallel.py FOLDER` prints the largest differences in a folder that
`processes.py FOLDER` has filled; docs/distributed.md shows them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from cases import CASES, formats

sys.path.pop(0)

# The largest difference, relative to the largest value of a tensor or to 1.
TOLERANCE = {"fp64": 1e-12, "fp32": 1e-6}
RUNS = [(name, kind, world) for name, case in CASES.items() for kind, *_ in formats(case) for world in case.worlds]
runs = pytest.mark.parametrize(("name", "kind", "world"), RUNS)
Read = Callable[[str], Any]


def difference(values: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value where this is above 1."""
    if not expected.numel():
        return 0.0
    return float((values.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1))


def differences(read: Read, name: str, kind: str, world: int, prefix: str = "") -> dict[str, float]:
    """What differs between `world` processes and one: the largest difference of each."""
    alone = read(f"{name} {kind} {world if CASES[name].by_process else CASES[name].worlds[0]} alone")
    each = [read(f"{prefix}{name} {kind} {world} {rank}") for rank in range(world)]
    outputs = torch.cat([result["y"][0] for result in each])
    largest = {"outputs": difference(outputs, alone["y"][0])}
    for part in ("gradients", "clipped", "first", "last"):
        if prefix and part != "gradients":
            continue
        for key, expected in alone[part].items():
            held = [result[part][key] for result in each if key in result[part]]
            assert held, f"no process holds {key}"
            for value in held:
                assert (value is None) == (expected is None), key
                if expected is not None:
                    largest[part] = max(largest.get(part, 0.0), difference(value, expected))
    for part in ("norm", "balance"):
        for result in each if not prefix else ():
            if part == "balance" and CASES[name].by_process:
                continue
            pairs = zip(result[part], alone[part], strict=True)
            largest[part] = max(
                largest.get(part, 0.0), *(difference(torch.tensor(a), torch.tensor(b)) for a, b in pairs)
            )
    return largest


@runs
def test_it_computes_what_one_process_computes(result, name, kind, world):
    measured = differences(result, name, kind, world)
    assert {"outputs", "gradients", "clipped", "first", "last", "norm"} <= {*measured}
    assert max(measured.values()) <= TOLERANCE[kind], measured


@pytest.mark.parametrize("name", ["top-2 of a stack", "top-2 of unlike experts"])
@pytest.mark.parametrize("world", [2, 4])
def test_gradients_times_the_number_of_processes_are_noticed(result, name, world):
    """The loss and the outputs of such a step are right, so that only the gradients tell."""
    measured = differences(result, name, "fp64", world, "multiplied ")
    assert measured["outputs"] <= TOLERANCE["fp64"]
    assert measured["gradients"] > 1e-3


def test_a_bias_moves_by_the_rows_of_all_processes(result):
    for rank in range(4):
        bias = result(f"top-2 of a stack fp32 4 {rank}")["last"]["router.bias"]
        assert torch.equal(bias, result("top-2 of a stack fp32 2 alone")["last"]["router.bias"])
        assert bias.any()


@pytest.mark.parametrize("world", [2, 4])
def test_each_process_holds_its_own_experts_alone(result, world):
    holders = [result(f"top-2 of unlike experts fp64 {world} {rank}")["last"] for rank in range(world)]
    for number in range(5):
        assert sum(any(key.startswith(f"experts.{number}.") for key in state) for state in holders) == 1


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for case, number_format, processes in RUNS:
        measured = differences(lambda name: torch.load(folder / name), case, number_format, processes)
        print(f"{case:26} {number_format} {processes}  " + "  ".join(f"{k} {v:.0e}" for k, v in measured.items()))
