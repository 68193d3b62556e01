"""FSDP2 on two processes trains what one process trains on the rows of both, and what it saves one process loads.

Each model is sharded as a whole, and those over stacks layer by layer: every Stack, Mixture and SparseFFN by itself.
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


cases = pytest.mark.parametrize(
    ("way", "name"),
    [*(("whole", name) for name in ("list", "stack", "ffn", "nested")), ("layers", "stack"), ("layers", "ffn")],
)


@cases
def test_it_trains_what_one_process_trains(result, way, name, model, other, train, same):
    train(model)
    full_state, _ = result(f"{way} {name}", 0)
    other.load_state_dict(full_state)
    same(model, other, rtol=1e-4, atol=1e-5)


@cases
def test_one_process_goes_on_from_its_checkpoint(result, way, name, model, other, train, adam, same):
    _, folder = result(f"{way} {name}", 0)
    train(model, steps=4)
    optimizer = adam(other)
    state = dict(zip(("model", "optimizer"), get_state_dict(other, optimizer), strict=True))
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(other, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(other, steps=1, optimizer=optimizer, first=3)
    same(model, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["list", "nested"])
def test_experts_of_a_list_are_not_sharded_one_by_one(result, name):
    """A process without rows for an expert would not call it, and the other would wait for ever."""
    for rank in range(2):
        error = result(f"experts {name}", rank)
        assert "expert" in error
        assert "fully_shard(mixture)" in error
