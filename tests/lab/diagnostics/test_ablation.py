import numpy as np
import pytest
import torch

import moebius as mb
from moebius.core.routing import Routing
from moebius.lab.diagnostics import Ablation, without_expert


def test_agrees_with_a_loop_over_experts(make_rows):
    random = np.random.default_rng(0)
    losses, without = (random.random(shape).astype(np.float32) for shape in ((100,), (100, 3)))
    scores = (random.random((100, 3)) < 0.5).astype(np.float32)
    rows = make_rows(
        np.ones((100, 3)), losses=losses, ablated_losses=without, scores=scores[:, 0], ablated_scores=scores
    )
    frame = Ablation.of(rows)
    change = without - losses[:, None]
    np.testing.assert_allclose(frame["change"], change.mean(0), rtol=1e-4)
    np.testing.assert_allclose(frame["null"], change.mean(), rtol=1e-4)
    np.testing.assert_allclose(frame["high"] - frame["change"], 1.98422 * change.std(0, ddof=1) / 10, rtol=1e-4)
    np.testing.assert_allclose(frame["score_change"], scores.mean(0) - scores[:, 0].mean(), atol=1e-6)


def routing_of(weights, probs):
    return Routing(probs.log(), probs, weights, weights.log())


def test_an_expert_that_is_never_used_costs_nothing(make_rows):
    weights = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]])
    outputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    routing = routing_of(weights, weights)
    losses = mb.WeightedSum()(outputs, routing).square().sum(1)
    ablated = torch.stack(
        [mb.WeightedSum()(outputs, without_expert(routing, expert)).square().sum(1) for expert in range(3)], 1
    )
    frame = Ablation.of(make_rows(weights.numpy(), losses=losses.numpy(), ablated_losses=ablated.numpy()))
    assert frame["change"][2] == pytest.approx(0, abs=1e-6)


def test_the_others_share_the_weight_of_an_expert():
    random = torch.Generator().manual_seed(1)
    probs = torch.rand(6, 4, generator=random).softmax(1)
    weights = probs * (probs >= probs.topk(2).values[:, 1:])
    for expert in range(4):
        rest = weights.clone()
        rest[:, expert] = 0
        rest *= (weights.sum(1) / rest.sum(1)).unsqueeze(1)
        torch.testing.assert_close(without_expert(routing_of(weights, probs), expert).weights, rest)


def test_a_small_rest_is_exact():
    weights = torch.tensor([[1 - 1e-7, 6e-8, 4e-8]])
    torch.testing.assert_close(without_expert(routing_of(weights, weights), 0).weights, torch.tensor([[0, 0.6, 0.4]]))


def test_where_the_expert_ran_alone_the_next_one_takes_the_row():
    routing = routing_of(torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([[0.5, 0.2, 0.3]]))
    assert without_expert(routing, 0).weights.tolist() == [[0, 0, 0.5]]
    assert without_expert(routing, 1).weights.tolist() == [[0.5, 0, 0]]


def test_weights_for_each_class_are_shared_out_too():
    torch.manual_seed(0)
    routing = mb.routers.PerClass(classes=3)(torch.randn(8, 6))
    rest = without_expert(routing, 0)
    assert (rest.head_weights[:, :, 0] == 0).all()
    torch.testing.assert_close(rest.head_weights.sum(2), routing.head_weights.sum(2))
