"""DistributedDataParallel on two processes trains what one process trains on the rows of both.

Each process takes its rows in two pieces whose gradients add up, so that the router has counted twice when it steps.
"""

import pytest
import torch


@pytest.fixture(scope="module")
def result(two_processes):
    return two_processes("ddp")


@pytest.mark.parametrize("rank", [0, 1])
def test_it_trains_what_one_process_trains(result, rank, model, name, other, train, same):
    train(model)
    other.load_state_dict(result(name, rank))
    same(model, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["list", "stack", "attentive", "several"])
def test_a_gate_without_gradient_and_an_expert_without_rows(result, pool, unused, adam, train, same):
    """Neither needs find_unused_parameters. The gate has gradients of zero, so that AdamW lets it decay."""
    model, other = unused(pool), unused(pool, seed=1)
    optimizer = adam(model)
    optimizer.register_step_pre_hook(fill)
    train(model, optimizer=optimizer)
    other.load_state_dict(result(f"unused {pool}", 1))
    same(model, other, rtol=1e-4, atol=1e-5)


def fill(optimizer, *_):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
