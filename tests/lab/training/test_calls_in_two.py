"""Calls of mb.fit in two processes that differ, stand beside others, or are alone."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from launching import launched

sys.path.pop(0)

SCRIPT = Path(__file__).with_name("calls_in_two.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of each call in the first and in the second process."""
    folder = tmp_path_factory.mktemp("calls")
    ended = launched(SCRIPT, 2, [str(folder)])
    assert not any(process.returncode for process in ended), "\n".join(process.stdout for process in ended)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


# Call → the words that its error has in both processes.
REFUSALS = {
    "rows": ["data: has to be the same in all processes", "in process 0", "in process 1", "DistributedSampler"],
    "fewer rows": ["data: has to be the same in all processes", "40 rows", "39 rows"],
    "labels": ["data: has to be the same in all processes"],
    "batch_size": ["batch_size: has to be the same", "[10] in process 0, [20] in process 1"],
    "optimizer": ["optimizer: has to be the same"],
    "losses": ["losses: has to be the same"],
    "seed": ["seed: has to be the same", "[0] in process 0, [1] in process 1"],
    "model": ["model: has to be the same"],
    "frozen": ["model: has to be the same"],
    "callbacks": ["on_epoch: has to be the same"],
    "small batch": ["batch_size: has too few rows for 2 processes", "got 1"],
    "batch norm": ["experts.0.1: takes the statistics of one process's rows", "GroupNorm"],
    "synchronised": ["experts.0.1: waits for all processes", "GroupNorm"],
    "fully sharded": ["model.gate: is on several processes in parts", "mb.distributed"],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_call_that_processes_cannot_share_is_refused_in_each(results, name):
    for of_process in results:
        kind, *lines = of_process[name]
        assert kind == "ArgumentError", lines
        for words in REFUSALS[name]:
            assert words in "\n".join(lines)


def test_only_the_first_process_calls_callbacks_and_its_answer_ends_all(results):
    (first, losses), (second, losses_of_second) = (of_process["called"] for of_process in results)
    assert (first, second) == (2, 0)
    assert losses == losses_of_second
    assert len(losses) == 2


def test_an_error_of_a_callback_ends_all_processes(results):
    first, second = (of_process["broken callback"] for of_process in results)
    assert first == ["ValueError", "no more"]
    assert second[:2] == ["TrainingError", "another process: ValueError: no more"]


def test_a_group_of_the_user_stays(results):
    for of_process in results:
        assert of_process["beside a group"] == [of_process["first"], True]


def test_a_group_that_fit_began_ends_with_it(results):
    """Also after other calls failed, and so that the next call begins another one."""
    for of_process in results:
        assert of_process["after"] == [of_process["first"], False, of_process["first"], False]


def test_processes_may_train_alone(results):
    (first, inside), (second, inside_of_second) = (of_process["alone"] for of_process in results)
    assert first != second
    assert len(first) == len(second) == 2
    assert inside == inside_of_second
    assert len(inside) == 2


def test_loops_of_others_run_no_expert_without_rows(results):
    """In mb.fit a mixture inside of an expert runs in each process, since its gate losses are sums."""
    assert [of_process["own loop"] for of_process in results] == [[40], [40]]
