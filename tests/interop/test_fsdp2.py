"""FSDP2 on two processes trains what one process trains on the rows of both, and what it saves one process loads.

Each model is sharded as a whole, and layer by layer as large models are: every Stack, Mixture and SparseFFN by itself.
"""

import pytest
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning",
)


@pytest.fixture(scope="module")
def result(two_processes):
    return two_processes("fsdp2")


@pytest.fixture(params=["whole", "layers"])
def case(request, name):
    return f"{request.param} {name}"


def test_it_trains_what_one_process_trains(result, case, model, other, train, same):
    train(model)
    full_state, _ = result(case, 0)
    other.load_state_dict(full_state)
    same(model, other, rtol=1e-4, atol=1e-5)


def test_one_process_goes_on_from_its_checkpoint(result, case, model, other, train, adam, same):
    _, folder = result(case, 0)
    train(model, steps=4)
    optimizer = adam(other)
    state = dict(zip(("model", "optimizer"), get_state_dict(other, optimizer), strict=True))
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(other, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(other, steps=1, optimizer=optimizer, first=3)
    same(model, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_experts_of_a_list_are_not_sharded_one_by_one(result, rank):
    """A process without rows for an expert would not call it, and the other would wait for ever."""
    error = result("single experts", rank)
    assert "expert" in error
    assert "fully_shard(mixture)" in error
