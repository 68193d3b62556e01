from dataclasses import replace
from math import log

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moebius.core.recording import record
from moebius.kit.errors import ArgumentError
from moebius.lab.training.gate_losses import GateLoss
from moebius.lab.training.objective import Objective, expert_losses
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture
from moebius.losses.batch_entropy import batch_entropy
from moebius.losses.distillation import distillation
from moebius.losses.sample_entropy import sample_entropy
from moebius.routers.soft import Soft
from moebius.tasks import Classification, Regression

EVEN = torch.zeros(2, 2)
LABELS = torch.tensor([0, 1])


def gate_loss(weight, function=batch_entropy) -> GateLoss:
    return GateLoss(kind=function, weight=weight)


def objective(losses=(), log_probabilities=False, cross_entropy=1.0):
    """The objective of one run; returns the total and the other terms."""
    task = Classification()
    task.outputs = "log-probabilities" if log_probabilities else "logits"
    settings = Settings(losses=tuple(losses), cross_entropy=cross_entropy)

    class OneRun(Objective):
        def __call__(self, output, labels, log, epoch):
            (terms,) = super().__call__(output, labels, [log], epoch)
            return terms.pop("loss"), terms

    return OneRun(task, [settings])


def test_total_and_terms_are_literal():
    compute = objective([gate_loss(0.5), gate_loss(0.25, sample_entropy)])
    total, terms = compute(EVEN, LABELS, {"": [Soft()(EVEN)]}, 0.0)
    # Both outputs are even: cross-entropy ln 2; the gate is even: batch term −ln 2, sample term ln 2.
    assert total.item() == pytest.approx(log(2) * (1 - 0.5 + 0.25))
    assert list(terms) == ["cross_entropy", "batch_entropy", "sample_entropy"]
    assert [value.item() for value in terms.values()] == pytest.approx([log(2), -log(2), log(2)])
    assert not any(value.requires_grad for value in terms.values())


@pytest.mark.parametrize(("epoch", "weight"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (7.0, 1.0)])
def test_weight_follows_its_schedule(epoch, weight):
    compute = objective([gate_loss({"kind": "linear", "start": 0.0, "end": 1.0, "epochs": 2})])
    total, _ = compute(EVEN, LABELS, {"": [Soft()(EVEN)]}, epoch)
    assert total.item() == pytest.approx(log(2) * (1 - weight), abs=1e-6)


def test_loss_of_weight_zero_is_reported_without_a_gradient():
    scores = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    output = torch.zeros(2, 2, requires_grad=True)
    total, terms = objective([gate_loss(0.0)])(output, LABELS, {"": [Soft()(scores)]}, 0.0)
    total.backward()
    assert terms["batch_entropy"].item() < 0
    assert scores.grad is None
    assert output.grad is not None
    total, _ = objective([gate_loss(0.1)])(output, LABELS, {"": [Soft()(scores)]}, 0.0)
    total.backward()
    assert scores.grad is not None
    assert scores.grad.abs().sum() > 0


def test_a_loss_is_summed_over_mixtures_and_calls_and_skips_those_without_rows():
    sure = Soft()(torch.tensor([[0.0, -torch.inf]]))
    even, none = Soft()(EVEN), Soft()(torch.zeros(0, 2))
    compute = objective([gate_loss(1.0, sample_entropy)])
    _, terms = compute(EVEN, LABELS, {"": [even], "experts.0": [even, sure], "experts.1": [none]}, 0.0)
    assert terms["sample_entropy"].item() == pytest.approx(2 * log(2))
    _, terms = compute(EVEN, LABELS, {}, 0.0)
    assert terms["sample_entropy"].item() == 0


def test_log_probabilities_equal_logits():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    of_logits, _ = objective()(logits, labels, {}, 0.0)
    of_log_probabilities, _ = objective(log_probabilities=True)(logits.log_softmax(-1), labels, {}, 0.0)
    assert of_log_probabilities.item() == pytest.approx(of_logits.item(), rel=1e-6)
    assert of_logits.item() == pytest.approx(F.cross_entropy(logits, labels).item())


@pytest.mark.parametrize("gives_log_probabilities", [False, True])
def test_bf16_output_is_reduced_in_float32(gives_log_probabilities):
    output = torch.randn(300, 20, generator=torch.Generator().manual_seed(0)).log_softmax(-1).bfloat16()
    labels = torch.arange(300) % 20
    total, _ = objective((), gives_log_probabilities)(output, labels, {}, 0.0)
    exact, _ = objective((), gives_log_probabilities)(output.float(), labels, {}, 0.0)
    assert total.dtype == torch.float32
    assert total.item() == exact.item()


def best_loss(routing, expert_losses, floor=0.0):
    return (1 - floor) * expert_losses.min(1).values.mean() + floor * expert_losses.mean()


def recorded(rows=6, experts=3, classes=4):
    torch.manual_seed(0)
    moe = Mixture(nn.Linear(5, experts), [nn.Linear(5, classes) for _ in range(experts)])
    x, labels = torch.randn(rows, 5), torch.arange(rows) % classes
    with record(moe, outputs=True) as log:
        output = moe(x)
    return moe, x, labels, output, log


def test_a_loss_that_compares_experts_is_given_each_ones_own():
    moe, x, labels, output, log = recorded()
    compute = objective([gate_loss(0.5, best_loss)])
    assert compute.needs_outputs
    total, terms = compute(output, labels, log, 0.0)
    each = torch.stack([F.cross_entropy(expert(x), labels, reduction="none") for expert in moe.experts], 1)
    assert terms["best_loss"].item() == pytest.approx(each.min(1).values.mean().item(), rel=1e-5)
    assert total.item() == pytest.approx(terms["cross_entropy"].item() + 0.5 * terms["best_loss"].item(), rel=1e-5)
    total.backward()
    assert all(expert.weight.grad.abs().sum() > 0 for expert in moe.experts)


def test_a_nested_mixtures_experts_are_compared_on_the_rows_it_was_sent():
    *_, labels, _, log = recorded()
    routing = log[""][0]
    part = replace(Soft()(routing.scores[[4, 1]]), outputs=routing.outputs[[4, 1]], rows=torch.tensor([4, 1]))
    of_part, of_all = expert_losses(Classification(), {"": [part, routing]}, labels, (4,))
    torch.testing.assert_close(of_part, of_all[[4, 1]])


def test_experts_that_do_not_do_the_task_are_refused():
    *_, labels, output, log = recorded()
    compute = objective([gate_loss(1.0, best_loss)])
    nested = replace(log[""][0], rows=torch.arange(6) + 6)
    tokens = replace(Soft()(torch.zeros(12, 3)), outputs=torch.zeros(12, 3, 4))
    for routings, rows in (([log[""][0]], output[:, :3]), ([nested, tokens], output)):
        with pytest.raises(ArgumentError, match=r"needs outputs of shape \(rows, experts, [34]\)"):
            compute(rows, labels.clamp(max=2), {"": routings}, 0.0)


def test_without_the_outputs_it_says_how_to_get_them():
    compute = objective([gate_loss(1.0, best_loss)])
    with pytest.raises(ArgumentError, match=r"outputs=True"):
        compute(EVEN, LABELS, {"": [Soft()(EVEN)]}, 0.0)


def test_the_outputs_own_loss_can_be_left_out():
    _, _, labels, output, log = recorded()
    impossible = torch.full_like(output, -torch.inf, requires_grad=True)
    compute = objective([gate_loss(1.0, best_loss)], log_probabilities=True, cross_entropy=0.0)
    total, terms = compute(impossible, labels, log, 0.0)
    assert terms["cross_entropy"].item() == torch.inf
    assert total.item() == pytest.approx(terms["best_loss"].item())
    total.backward()
    assert impossible.grad is None


def test_options_of_a_loss_follow_schedules():
    floor = {"kind": "step", "start": 1.0, "factor": 0.2, "every": 2}
    _, _, labels, output, log = recorded()
    compute = objective([GateLoss(kind=best_loss, floor=floor)], cross_entropy=0.0)
    (each,) = expert_losses(Classification(), log, labels, (4,))
    for epoch, value in ((0.0, 1.0), (2.0, 0.2), (5.0, 0.04)):
        total, _ = compute(output, labels, log, epoch)
        torch.testing.assert_close(total, best_loss(None, each, value))


def test_a_loss_on_logits_of_classes_is_refused_where_none_are_learned():
    settings = Settings(losses=(gate_loss(1.0, distillation),))
    Objective(Classification(), [settings])
    with pytest.raises(ArgumentError, match=r"losses\.distillation: reads the experts' outputs as logits") as caught:
        Objective(Regression(), [settings])
    assert caught.value.fix
