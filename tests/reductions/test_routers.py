"""Routers that become other routers at the ends of their ranges."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moebius.combine.log_mixture import LogMixture
from moebius.core.recording import record
from moebius.layers.mixture import Mixture
from moebius.routers.argmax import Argmax
from moebius.routers.expert_choice import ExpertChoice
from moebius.routers.gumbel import Gumbel
from moebius.routers.heads import Heads
from moebius.routers.noisy_top_k import NoisyTopK
from moebius.routers.sinkhorn import Sinkhorn
from moebius.routers.soft import Soft
from moebius.routers.sparsemax import Sparsemax
from moebius.routers.switch import Switch
from moebius.routers.threshold import Threshold
from moebius.routers.top_k import TopK

EXPERTS = 5
X = torch.randn(17, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def results(router, combine=None, training=True):
    """Output, weights and all gradients of one mixture under a router."""
    torch.manual_seed(1)
    moe = Mixture(nn.Linear(6, EXPERTS), [nn.Linear(6, 4) for _ in range(EXPERTS)], router, combine).double()
    x = X.clone().requires_grad_()
    with record(moe.train(training)) as log:
        y = moe(x)
    y.square().sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in moe.parameters()]
    return y.detach(), log[""][0].weights.detach(), x.grad, gradients


SAME = {
    "top-k, k = E": (lambda: TopK(EXPERTS), Soft),
    "top-k, k beyond E": (lambda: TopK(EXPERTS + 3), Soft),
    "top-k, k = E, not renormalised": (lambda: TopK(EXPERTS, renormalise=False), Soft),
    "threshold, p = 1": (lambda: Threshold(1.0), Soft),
    "threshold, p = 1, renormalised": (lambda: Threshold(1.0, renormalise=True), Soft),
    "threshold, p near 0": (lambda: Threshold(1e-9), lambda: TopK(1)),
    "expert choice, full capacity": (lambda: ExpertChoice(EXPERTS), Soft),
    "switch, no capacity": (lambda: Switch(capacity=None, jitter=0.0), lambda: TopK(1)),
    "switch, room for all": (lambda: Switch(capacity=EXPERTS, jitter=0.0), lambda: TopK(1)),
    "noisy top-k, no noise": (lambda: NoisyTopK(2, learned_noise=False, noise=0.0), lambda: TopK(2)),
    "sinkhorn in eval": (lambda: Sinkhorn(1), lambda: TopK(1)),
    "sinkhorn in eval, k = 2": (lambda: Sinkhorn(2), lambda: TopK(2)),
    "gumbel in eval": (Gumbel, Argmax),
    "sparsemax, cold": (lambda: Sparsemax(1e-9), Argmax),
    "one head": (lambda: Heads(TopK(2), 1), lambda: TopK(2)),
    "top-k of sigmoid, k = E, not renormalised": (
        lambda: TopK(EXPERTS, "sigmoid", renormalise=False),
        lambda: Soft(normalisation="sigmoid"),
    ),
    "top-k of elu": (lambda: TopK(EXPERTS, "elu"), lambda: Soft(normalisation="elu")),
}


@pytest.mark.parametrize("combine", [None, LogMixture()])
@pytest.mark.parametrize("name", SAME)
def test_at_its_end_a_router_is_another(name, combine):
    if combine is not None and "elu" in name:
        return  # weights below 0 are no mixture of probabilities
    router, known_router = SAME[name]
    training = "in eval" not in name
    torch.testing.assert_close(results(router(), combine, training), results(known_router(), combine, training))


def test_a_log_mixture_is_the_log_of_the_mixture():
    torch.manual_seed(0)
    moe = Mixture(nn.Linear(6, EXPERTS), [nn.Linear(6, 4) for _ in range(EXPERTS)], TopK(2), LogMixture()).double()
    labels = torch.arange(17) % 4
    with record(moe) as log:
        loss = F.nll_loss(moe(X), labels)
    probs = torch.stack([expert(X).softmax(-1) for expert in moe.experts], 1)[torch.arange(17), :, labels]
    torch.testing.assert_close(loss, -(log[""][0].weights * probs).sum(1).log().mean())
