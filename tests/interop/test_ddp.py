"""DistributedDataParallel on two processes trains what one process trains on the rows of both.

Each process takes its rows in two pieces whose gradients add up, so that the router has counted twice when it steps.
"""

import pytest


@pytest.fixture(scope="module")
def result(two_processes, tmp_path_factory):
    return two_processes("ddp", tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("rank", [0, 1])
def test_it_trains_what_one_process_trains(result, rank, model, name, other, train, same):
    train(model)
    other.load_state_dict(result(name, rank))
    same(model, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["list", "stack"])
def test_a_gate_without_gradient_and_an_expert_without_rows(result, pool, unused, train, same):
    """Neither needs find_unused_parameters."""
    model, other = unused(pool), unused(pool, seed=1)
    train(model)
    other.load_state_dict(result(f"unused {pool}", 1))
    same(model, other, rtol=1e-4, atol=1e-5)
