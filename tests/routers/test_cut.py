import torch
from torch import nn

import moebius as mb
from moebius.routers.argmax import Argmax
from moebius.routers.cut import Cut
from moebius.routers.hash import Hash
from moebius.routers.heads import Heads
from moebius.routers.noisy_top_k import NoisyTopK
from moebius.routers.per_class import PerClass
from moebius.routers.relu import ReLU
from moebius.routers.soft import Soft
from moebius.routers.switch import Switch
from moebius.routers.top_k import TopK


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_worked():
    routing = Cut(Soft())(torch.tensor([[1.0, 2.0, 0.0], [3.0, 3.0, 1.0]]))
    assert routing.weights.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert routing.log_weights.exp().tolist() == routing.weights.tolist()
    assert routing.selection.expert_A.tolist() == [1, 0]


def test_cut_soft_is_argmax():
    scores = random(30, 5)
    ours, expected = Cut(Soft())(scores), Argmax()(scores)
    for name in ("weights", "log_weights", "probs"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name))
    assert torch.equal(ours.selection.expert_A, expected.selection.expert_A)


def test_cutting_what_has_one_expert_changes_nothing():
    scores = random(30, 5)
    for router in (Argmax(), Hash()):
        torch.testing.assert_close(Cut(router)(scores).weights, router(scores).weights)


def test_a_mixture_that_is_cut_gives_the_best_experts_output():
    torch.manual_seed(0)
    gate, experts, x = nn.Linear(3, 4), [nn.Linear(3, 2) for _ in range(4)], random(9, 3)
    y = mb.Mixture(gate, experts, Cut(TopK(2)))(x)
    best = gate(x).argmax(-1)
    torch.testing.assert_close(y, torch.stack([expert(x) for expert in experts], 1)[torch.arange(9), best])


def test_several_heads_are_cut_to_the_expert_that_weighs_most_in_all():
    # softmax of the two heads: (0.6, 0.4, 0) and (0, 0.4, 0.6), so that the second has 0.8 in all.
    scores = torch.tensor([[0.6, 0.4, 1e-9, 1e-9, 0.4, 0.6]]).log()
    routing = Cut(Heads(Soft(), 2))(scores)
    assert routing.weights.tolist() == [[0.0, 1.0, 0.0]]
    assert routing.head_weights is None
    assert Cut(PerClass(2))(random(4, 6)).head_weights is None


def test_a_row_that_was_dropped_goes_by_probs():
    scores = torch.tensor([[0.0, 5.0]] * 4)
    router = Switch(capacity=1, jitter=0.0)
    assert router(scores).weights.count_nonzero() == 2
    assert Cut(router)(scores).weights.tolist() == [[0.0, 1.0]] * 4


def test_asks_for_what_the_other_router_asks_for():
    assert Cut(NoisyTopK(2)).gate_outputs(4) == 8
    assert Cut(Hash()).needs_keys
    keys = torch.arange(12)
    torch.testing.assert_close(Cut(Hash())(random(12, 4), keys).weights, Hash()(random(12, 4), keys).weights)


def test_the_other_routers_noise_follows_the_mode():
    router, scores = Cut(NoisyTopK(2, learned_noise=False, noise=5.0)), random(200, 4)
    torch.manual_seed(1)
    noisy = router.train()(scores).weights
    quiet = router.eval()(scores).weights
    assert torch.equal(quiet, Argmax()(scores).weights)
    assert not torch.equal(noisy, quiet)


def test_keeps_what_losses_read():
    scores = random(6, 3).requires_grad_()
    full_routing, routing = ReLU()(scores), Cut(ReLU())(scores)
    torch.testing.assert_close(routing.probs, full_routing.probs)
    assert routing.distribution == full_routing.distribution is False
    routing.probs.sum().backward()
    assert scores.grad.count_nonzero() > 0
    assert not routing.weights.requires_grad
    assert torch.equal(Cut(TopK(2))(scores).aux["assigned"], TopK(2)(scores).aux["assigned"])


def test_cutting_soft_to_k_is_the_top_k_router():
    scores = random(30, 5)
    ours, expected = Cut(Soft(), k=3)(scores), TopK(3)(scores)
    torch.testing.assert_close(ours.weights, expected.weights)
    torch.testing.assert_close(ours.log_weights, expected.log_weights)
    assert ours.selection.kept_A.sum() == 90


def test_k_experts_share_a_weight_of_1_in_the_proportion_of_their_weights():
    weights = torch.tensor([[0.2, 0.6, 0.0, 0.1], [0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, -3.0, -0.5]])
    routing = Cut(Soft(normalisation="none"), k=2)(weights)
    torch.testing.assert_close(routing.weights[0], torch.tensor([0.25, 0.75, 0.0, 0.0]))
    # Without a positive weight the largest has all.
    assert routing.weights[1].sum() == 1
    assert routing.weights[2].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_more_experts_than_there_are_are_all():
    scores = random(6, 3)
    torch.testing.assert_close(Cut(Soft(), k=9)(scores).weights, Soft()(scores).weights)
