import numpy as np
import pytest
import torch

from moebius.lab.diagnostics import Ablation, outputs_without_each


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


def test_an_expert_that_is_never_used_costs_nothing(make_rows):
    weights = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]])
    outputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mixed = torch.einsum("te,ted->td", weights, outputs)
    torch.testing.assert_close(outputs_without_each(weights, weights, outputs)[:, 2], mixed)
    losses = mixed.square().sum(1)
    ablated = outputs_without_each(weights, weights, outputs).square().sum(2)
    frame = Ablation.of(make_rows(weights.numpy(), losses=losses.numpy(), ablated_losses=ablated.numpy()))
    assert frame["change"][2] == pytest.approx(0, abs=1e-6)


def test_outputs_without_each_expert_by_a_loop():
    random = torch.Generator().manual_seed(1)
    probs = torch.rand(6, 4, generator=random).softmax(1)
    outputs = torch.randn(6, 4, 3, generator=random)
    weights = probs * (probs >= probs.topk(2).values[:, 1:])
    actual = outputs_without_each(weights, probs, outputs)
    for expert in range(4):
        rest = weights.clone()
        rest[:, expert] = 0
        rest *= (weights.sum(1) / rest.sum(1)).unsqueeze(1)
        torch.testing.assert_close(actual[:, expert], torch.einsum("te,ted->td", rest, outputs))


def test_where_the_expert_ran_alone_the_next_one_takes_the_row():
    probs = torch.tensor([[0.5, 0.2, 0.3]])
    outputs = torch.tensor([[[1.0], [10.0], [100.0]]])
    weights = torch.tensor([[0.5, 0.0, 0.0]])
    assert outputs_without_each(weights, probs, outputs).flatten().tolist() == [50, 0.5, 0.5]
