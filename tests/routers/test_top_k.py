import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.routers.top_k import TopK

SCORES = torch.tensor([[math.log(4.0), math.log(3.0), math.log(2.0), math.log(1.0)]])


@pytest.mark.parametrize(
    ("router", "weights"),
    [
        (TopK(2), [4 / 7, 3 / 7, 0, 0]),
        (TopK(2, renormalise=False), [0.4, 0.3, 0, 0]),
        (TopK(1), [0.4, 0, 0, 0]),
        (TopK(1, renormalise=False), [0.4, 0, 0, 0]),
        (TopK(9), [0.4, 0.3, 0.2, 0.1]),
        (TopK(2, "relu"), [math.log(4), math.log(3), 0, 0]),
        (TopK(2, "sigmoid"), [0.8 / 1.55, 0.75 / 1.55, 0, 0]),
        (TopK(2, "sigmoid", renormalise=False), [0.8, 0.75, 0, 0]),
    ],
)
def test_worked(router, weights):
    torch.testing.assert_close(router(SCORES).weights, torch.tensor([weights], dtype=torch.float32))


@pytest.mark.parametrize("experts", [3, 8, 64])
def test_of_several_that_tie_the_first_is_the_best(experts):
    assert TopK(1)(torch.zeros(5, experts)).selection.expert_A.tolist() == [0] * 5


def test_relu_weights_of_zero_run_nothing():
    """Study 3's `sparse`: the two largest of an activation, of which fewer may be positive."""
    routing = TopK(2, "relu")(torch.tensor([[1.0, -1.0, -2.0]]))
    assert routing.selection.kept_A.tolist() == [True, False]
    assert not routing.distribution


def test_one_experts_weight_has_a_gradient_where_renormalising_would_leave_none():
    scores = SCORES.clone().requires_grad_()
    TopK(1)(scores).weights.sum().backward()
    probs = SCORES.softmax(-1)[0]
    by_hand = probs[0] * (torch.eye(4)[0] - probs)
    torch.testing.assert_close(scores.grad[0], by_hand)


def test_k_may_be_on_its_way_down():
    router = TopK(1)
    router.k = 2.6
    assert router.max_active(8) == 3
    assert (router(SCORES).weights != 0).sum() == 3
    assert router.rows_sum_to == 1.0


def route_and_step(router, scores):
    routing = router(scores)
    router.step()
    return routing


def test_the_bias_moves_towards_the_mean_load_while_training_and_changes_the_choice_alone():
    router = TopK(1, bias_rate=0.25, experts=2)
    scores = torch.tensor([[1.0, 0.0]] * 3)
    weights = [route_and_step(router, scores).weights[0].tolist() for _ in range(4)]
    # 0 → ∓0.25 → ∓0.5: then the biased scores tie at 0.5, and after that the other expert has them all.
    assert router.bias.abs().max() > 0.5 - 1e-6 or weights[-1][1] > 0
    first, second = SCORES.new_tensor([[1.0, 0.0]]).softmax(-1)[0].tolist()
    assert {round(max(weight), 4) for weight in weights} <= {round(first, 4), round(second, 4)}
    before = router.bias.clone()
    router.eval()(scores)
    assert torch.equal(router.bias, before)


def test_the_bias_balances_a_gate_that_prefers_one():
    torch.manual_seed(0)
    router = TopK(1, bias_rate=0.02, experts=4)
    preference = torch.tensor([3.0, 0.0, 0.0, 0.0])
    for _ in range(400):
        routing = route_and_step(router, torch.randn(64, 4) + preference)
    after = [route_and_step(router, torch.randn(64, 4) + preference).aux["assigned"] for _ in range(50)]
    loads = torch.stack(after).mean(0) / 64
    torch.testing.assert_close(loads, torch.full((4,), 0.25), rtol=0, atol=0.05)
    assert torch.equal(TopK(1)(routing.scores).probs, routing.probs)


def test_the_bias_is_saved():
    router, restored = TopK(1, bias_rate=0.1, experts=2), TopK(1, bias_rate=0.1, experts=2)
    route_and_step(router, torch.tensor([[1.0, 0.0]]))
    restored.load_state_dict(router.state_dict())
    assert torch.equal(restored.bias, torch.tensor([-0.1, 0.1]))


# Each process prefers an expert that the other does not: alone they would move the biases apart.
SHARING = """
import sys, torch
from torch import distributed
from moebius.routers.top_k import TopK
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
router = TopK(1, bias_rate=0.5, experts=3)
router(torch.eye(3)[[rank, rank, rank, 1 - rank]])
router.step()
# The second process has counted nothing since.
if rank == 0:
    router(torch.eye(3)[[2]])
router.step()
print(*router.bias.tolist())
"""


def test_the_bias_follows_the_load_of_all_processes(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", SHARING, str(rank), str(tmp_path / "meeting")] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
    # Loads of 4, 4 and 0, then 0, 0 and 1.
    assert outputs == [["0.0", "0.0", "0.0"]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: needs a whole number"),
        ({"k": 2, "bias_rate": -1}, "bias_rate: needs a number of at least 0"),
        ({"k": 2, "bias_rate": 0.1}, "experts: a bias per expert needs their number"),
        ({"k": 2, "normalisation": "softmaks"}, "normalisation: needs one of"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TopK(**arguments)


def test_renormalised_sigmoids_may_be_too_small_to_sum():
    """Sigmoids of −200 and −201 underflow; their ratio, e, does not."""
    scores = torch.tensor([[-200.0, -201.0, -300.0]]).requires_grad_()
    routing = TopK(2, "sigmoid")(scores)
    torch.testing.assert_close(routing.weights, torch.tensor([[math.e, 1.0, 0.0]]) / (math.e + 1))
    routing.weights[0, 0].backward()
    assert scores.grad.isfinite().all()


def test_k_never_falls_below_one():
    router = TopK(2)
    router.k = 0.3
    torch.testing.assert_close(router(SCORES).weights, TopK(1)(SCORES).weights)
    assert router.max_active(4) == 1


def test_the_bias_is_added_to_what_the_experts_would_weigh():
    """0.4 − 0.25 against 0.3 and 0.2 + 0.25: the first falls behind, and weights stay those of the gate."""
    router = TopK(2, renormalise=False, bias_rate=0.25, experts=4)
    router.bias.copy_(torch.tensor([-0.25, 0.0, 0.25, 0.0]))
    torch.testing.assert_close(router.eval()(SCORES).weights, torch.tensor([[0.0, 0.3, 0.2, 0.0]]))


def test_no_bias_brings_back_an_expert_that_is_ruled_out():
    router = TopK(1, bias_rate=9.0, experts=3)
    router.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    assert router.eval()(torch.tensor([[1.0, -torch.inf, 0.0]])).selection.expert_A.tolist() == [0]


def test_the_bias_stays_where_nothing_is_trained():
    router = TopK(1, bias_rate=0.1, experts=4)
    with torch.no_grad():
        router(SCORES)
        checkpoint(router, SCORES.clone().requires_grad_(), use_reentrant=True)
    with torch.inference_mode():
        router(SCORES)
    router.eval()(SCORES)
    torch.func.grad(lambda scores: router.train()(scores).weights.sum())(SCORES)
    router.step()
    assert not router.bias.any()
    route_and_step(router, SCORES)
    torch.testing.assert_close(router.bias, torch.tensor([-0.1, 0.1, 0.1, 0.1]))


def test_the_bias_knows_how_many_experts_there_are():
    with pytest.raises(ArgumentError, match="bias was made for 4 experts"):
        TopK(1, bias_rate=0.1, experts=4).gate_outputs(5)
    assert TopK(1).gate_outputs(5) == 5


def test_forwards_count_and_a_step_moves_the_bias_once():
    """Loads of 2, 1, 0 and then 0, 0, 1 sum to 2, 1, 1: a third more than the mean is above it, no matter how far."""
    router = TopK(1, bias_rate=0.25, experts=3)
    router(torch.eye(3)[[0, 0, 1]])
    router(torch.eye(3)[[2]])
    assert not router.bias.any()
    router.step()
    assert router.bias.tolist() == [-0.25, 0.25, 0.25]
    router.step()
    assert router.bias.tolist() == [-0.25, 0.25, 0.25]


@pytest.mark.parametrize("rows", [6, 3 * (2**24 + 1)])
def test_equal_loads_move_nothing(rows):
    """Also loads that float32 cannot count."""
    router = TopK(1, bias_rate=0.25, experts=3)
    router._count(router.bias, torch.full((3,), rows / 3, dtype=torch.float64))
    router.step()
    assert router.bias.tolist() == [0, 0, 0]


def test_two_micro_batches_are_one_batch():
    torch.manual_seed(0)
    full, halves = (TopK(2, "sigmoid", bias_rate=0.001, experts=16) for _ in range(2))
    for _ in range(5):
        scores = torch.randn(2048, 16)
        full(scores)
        for half in scores.chunk(2):
            halves(half)
        mb.step_routers(full)
        mb.step_routers(halves)
        assert torch.equal(full.bias, halves.bias)
    assert full.bias.count_nonzero() > 8


def test_heads_count_in_common():
    router = mb.routers.Heads(TopK(1, bias_rate=0.25, experts=3), heads=2)
    router(torch.cat([torch.eye(3)[[0, 0, 1]], torch.eye(3)[[0, 1, 2]]], 1))
    mb.step_routers(router)
    # Loads of 3, 2 and 1.
    assert router.router.bias.tolist() == [-0.25, 0.0, 0.25]


def test_every_router_of_a_model_steps_once():
    shared, outer = TopK(1, bias_rate=0.25, experts=2), TopK(1, bias_rate=0.5, experts=2)
    inner = [mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)], shared) for _ in range(2)]
    model = nn.Sequential(mb.Mixture(nn.Linear(4, 2), inner, outer), nn.ReLU(), inner[0])
    for router in (shared, outer):
        router(torch.tensor([[9.0, 0.0]]))
    mb.step_routers(model)
    assert shared.bias.tolist() == [-0.25, 0.25]
    assert outer.bias.tolist() == [-0.5, 0.5]


def test_an_optimizer_may_call_the_step():
    """The line for tools that own the loop."""
    router = TopK(1, bias_rate=0.25, experts=2)
    model = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)], router)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))
    model(torch.ones(5, 4)).sum().backward()
    assert not router.bias.any()
    optimizer.step()
    assert sorted(router.bias.tolist()) == [-0.25, 0.25]
