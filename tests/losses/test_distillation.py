"""Each expert learns what all of them say on average."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.losses.best_fit import best_fit
from moebius.losses.distillation import distillation
from moebius.routers.soft import Soft

PROBS = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]], dtype=torch.float64)  # one row, two experts, two classes
LOSSES = -PROBS[:, :, 0].log()


def routing(outputs):
    return replace(Soft()(torch.zeros(outputs.shape[:2], dtype=outputs.dtype)), outputs=outputs)


def test_worked():
    each = -(0.6 * PROBS[0, :, 0].log() + 0.4 * PROBS[0, :, 1].log())  # the teacher says .6, .4
    torch.testing.assert_close(distillation(routing(PROBS.log()), LOSSES), each.mean())
    first_alone = distillation(routing(PROBS.log()), LOSSES, temperature=0.0, floor=0.0)
    torch.testing.assert_close(first_alone, each[0])


def test_experts_that_agree_are_at_the_least_there_is():
    alike = torch.tensor([[[0.3, 0.7]] * 3], dtype=torch.float64)
    entropy = -(alike[0, 0] * alike[0, 0].log()).sum()
    torch.testing.assert_close(distillation(routing(alike.log()), torch.zeros(1, 3)), entropy)
    outputs = alike.log().requires_grad_()
    distillation(routing(outputs), torch.zeros(1, 3)).backward()
    assert outputs.grad.abs().max() < 1e-12


def test_the_teacher_is_not_taught():
    outputs = PROBS.log().requires_grad_()
    distillation(routing(outputs), LOSSES).backward()
    # ∂/∂logit of −Σ t ln p is p − t, an equal share for each expert, with t held fixed.
    teacher = torch.tensor([0.6, 0.4], dtype=torch.float64)
    torch.testing.assert_close(outputs.grad, (PROBS - teacher) / 2)


def test_it_weighs_rows_as_the_fit_beside_it_does():
    """Of a teacher that is sure of the target it is the very same loss."""
    torch.manual_seed(0)
    outputs = torch.randn(6, 3, 4, dtype=torch.float64)
    scores = torch.randn(6, 3, dtype=torch.float64)
    losses = -outputs.log_softmax(-1)[..., 0]
    full_routing = replace(Soft()(scores), outputs=outputs)
    for options in ({"floor": 0.2, "temperature": 1.0}, {"floor": 0.0}, {"floor": 1.0}):
        share_of_fit = torch.autograd.grad(
            best_fit(full_routing, leaf := losses.clone().requires_grad_(), **options), leaf
        )[0]
        cross_entropies = -(outputs.softmax(-1).mean(1, keepdim=True) * outputs.log_softmax(-1)).sum(-1)
        torch.testing.assert_close(
            distillation(full_routing, losses, **options), (share_of_fit * cross_entropies).sum()
        )


def test_a_class_that_all_rule_out_teaches_nothing():
    outputs = torch.tensor([[[0.0, -torch.inf], [1.0, -torch.inf]]]).requires_grad_()
    loss = distillation(routing(outputs), torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad.isfinite().all()


def test_it_says_how_to_get_the_outputs():
    moe = mb.Mixture(nn.Linear(3, 2), [nn.Linear(3, 2), nn.Linear(3, 2)])
    with mb.record(moe) as log:
        moe(torch.zeros(4, 3))
    with pytest.raises(ArgumentError, match=r"routing\.outputs: needs the outputs"):
        distillation(log[""][0], torch.zeros(4, 2))
