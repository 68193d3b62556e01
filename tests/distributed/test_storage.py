"""What four processes save, one and three load, equal to the bit."""

import pytest
import torch

import moebius as mb

names = pytest.mark.parametrize("name", ["stack", "list", "2 x 2 FSDP2"])


@pytest.fixture
def saved(result, name):
    """The tensors and momenta that four processes held, whole."""
    states, momenta, _ = zip(*(result(f"saved {name} {rank}") for rank in range(4)), strict=True)
    return {k: v for state in states for k, v in state.items()}, {k: v for part in momenta for k, v in part.items()}


def equal(values, expected):
    assert {*values} <= {*expected}
    assert values
    assert all(torch.equal(value, expected[key]) for key, value in values.items())


@names
def test_one_process_loads_what_four_saved(results, name, saved):
    state = mb.load(results / f"model {name}").state_dict()
    assert {*state} == {*saved[0]}
    equal(state, saved[0])


@names
def test_three_processes_load_what_four_saved(result, name, saved):
    for rank in range(3):
        state, shards, momenta = result(f"loaded {name} {rank}")
        equal(state, saved[0])
        equal(shards, saved[0])
        equal(momenta, saved[1])


@names
def test_three_processes_save_the_same_bytes(results, result, name):
    result(f"loaded {name} 0")
    first, second = (results / f"{word} {name}" / "model.safetensors" for word in ("model", "again"))
    assert first.read_bytes() == second.read_bytes()


@names
def test_an_error_of_the_writer_reaches_every_process(result, name):
    for rank in range(4):
        assert "needs a folder of its own" in result(f"saved {name} {rank}")[2]
