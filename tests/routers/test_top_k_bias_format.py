"""The balance bias of `TopK` stays float32, and goes where its router goes."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.routers.top_k import TopK


def route_and_step(router, scores):
    routing = router(scores)
    router.step()
    return routing


CASTS = {
    "bfloat16": lambda model: model.bfloat16(),
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to("cpu", torch.bfloat16),
    "type": lambda model: model.type(torch.float16),
}


@pytest.mark.parametrize("cast", CASTS)
def test_the_bias_stays_float32_in_a_model_of_another_format(cast):
    router = TopK(1, "sigmoid", bias_rate=1e-4, experts=2)
    model = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)], router)
    values = torch.tensor([0.1234567, -0.7654321])
    router.bias.copy_(values)
    router(torch.tensor([[9.0, 0.0]]))
    model = CASTS[cast](model)
    assert model.gate.weight.dtype != torch.float32
    assert router.bias.dtype == torch.float32
    assert torch.equal(router.bias, values)
    assert model.state_dict()["router.bias"].dtype == torch.float32
    router.step()
    assert torch.equal(router.bias, values + torch.tensor([-1e-4, 1e-4]))


@pytest.mark.parametrize("rate", [1e-3, 3e-5])
def test_small_moves_add_up_and_choose_in_bf16(rate):
    """Two experts whose activations differ by 0.00390625 in bf16 change places when their biases make up for it."""
    scores = torch.tensor([[0.265625, 0.25]], dtype=torch.bfloat16).expand(4, 2)
    router = TopK(1, "sigmoid", bias_rate=rate, experts=2).bfloat16()
    difference = (scores[0, 0].float().sigmoid() - scores[0, 1].float().sigmoid()).item()
    steps = 0
    while route_and_step(router, scores).selection.expert_A[0] == 0:
        steps += 1
    assert steps == math.ceil(difference / (2 * rate))


def test_a_model_made_in_bf16_has_a_bias_in_float32():
    torch.set_default_dtype(torch.bfloat16)
    try:
        router = TopK(1, bias_rate=1e-3, experts=2)
        route_and_step(router, torch.tensor([[9.0, 0.0]]))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(router.bias, torch.tensor([-1e-3, 1e-3]))


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_in_another_format_is_taken_in_float32(assign):
    router = TopK(1, bias_rate=1e-3, experts=2)
    router.load_state_dict({"bias": torch.tensor([0.5, -0.5], dtype=torch.bfloat16)}, assign=assign)
    route_and_step(router, torch.tensor([[9.0, 0.0]]))
    assert torch.equal(router.bias, torch.tensor([0.5, -0.5]) + torch.tensor([-1e-3, 1e-3]))


def test_a_bias_that_another_tool_put_there_moves_in_float32():
    """accelerate and transformers set buffers past the module, the counts still on the meta device."""
    with torch.device("meta"):
        router = TopK(1, bias_rate=1e-3, experts=2)
    router._buffers["bias"] = torch.zeros(2, dtype=torch.bfloat16)
    route_and_step(router, torch.tensor([[9.0, 0.0]]))
    assert torch.equal(router.bias, torch.tensor([-1e-3, 1e-3]))


def test_from_the_meta_device():
    with torch.device("meta"):
        router = TopK(1, bias_rate=0.25, experts=2)
    router = router.bfloat16().to_empty(device="cpu")
    route_and_step(router, torch.tensor([[9.0, 0.0]]))
    assert router.bias.tolist() == [-0.25, 0.25]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda router: pickle.loads(pickle.dumps(router))])
def test_a_copy_counts_by_itself(copied):
    router = TopK(1, bias_rate=0.25, experts=2)
    router(torch.tensor([[9.0, 0.0]]))
    copy = copied(router)
    copy(torch.tensor([[0.0, 9.0]]))
    router.step()
    copy.step()
    assert router.bias.tolist() == [-0.25, 0.25]
    assert copy.bias.tolist() == [0.0, 0.0]


def test_the_state_has_the_bias_alone():
    router = TopK(1, bias_rate=0.25, experts=2)
    router(torch.tensor([[9.0, 0.0]]))
    assert list(router.state_dict()) == ["bias"]
    assert not list(TopK(1).state_dict())


def test_a_step_that_was_forgotten_is_told_once():
    router = TopK(1, bias_rate=0.25, experts=2)
    scores = torch.tensor([[9.0, 0.0]])
    for _ in range(999):
        router(scores)
    with pytest.warns(UserWarning, match=r"counted 1000 forwards .*\n  fix: mb.step_routers\(model\)"):
        router(scores)
    for _ in range(1100):
        router(scores)
