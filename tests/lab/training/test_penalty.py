import pytest
import torch
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.lab.training.mixture_parts import parts
from moebius.lab.training.penalty import kernels, l2

CONV = {"experts": {"kind": "conv", "count": 2, "filters": [4], "hidden": [8]}, "combine": {"kind": "weighted_sum"}}


def everything():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4), nn.LayerNorm(4), nn.Linear(4, 3)
    )


def test_kernels_are_no_biases_and_no_norms():
    model = everything()
    assert kernels(model, "all") == [model[0].weight, model[3].weight, model[5].weight]
    (convolution,) = kernels(model, "convolutions")
    assert convolution is model[0].weight


def test_a_part_that_is_used_twice_counts_once():
    layer = nn.Linear(1, 1, bias=False)
    tied = nn.Linear(1, 1, bias=False)
    tied.weight = layer.weight
    with torch.no_grad():
        layer.weight.fill_(3.0)
    weights = kernels(nn.Sequential(layer, layer, tied), "all")
    assert len(weights) == 1
    assert l2(weights).item() == 9.0


def test_worked_by_hand():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        model[1].weight.fill_(0.5)
    assert l2(kernels(model, "all")).item() == 5.25
    model[0].requires_grad_(False)
    assert l2(kernels(model, "all")).item() == 0.25
    model[1].requires_grad_(False)
    assert l2(kernels(model, "all")).item() == 0.0
    assert l2([]).item() == 0.0


def test_frozen_parts_are_not_penalised():
    frozen, free = Adapter(nn.Linear(4, 3), frozen=True), nn.Linear(4, 3)
    moe = mb.Mixture(nn.Linear(4, 2), [frozen, free])
    (penalty,) = l2(kernels(moe, "all"))
    expected = moe.gate.weight.square().sum() + free.weight.square().sum()
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    assert frozen.network.weight.grad is None
    assert free.bias.grad is None
    torch.testing.assert_close(free.weight.grad, 2 * free.weight.detach())


def test_the_kernels_of_a_stack_are_those_of_its_experts():
    experts = [nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(5)]
    (one_by_one,), (stacked,) = (l2(kernels(each, "all")) for each in (nn.ModuleList(experts), mb.Stack(experts)))
    torch.testing.assert_close(stacked, one_by_one)
    assert kernels(mb.Stack(experts), "convolutions") == []


def test_each_of_several_runs_has_its_own_sum():
    stacked = nn.Parameter(torch.arange(12.0).view(2, 3, 2))
    assert l2([stacked], runs=2).tolist() == [kernel.square().sum().item() for kernel in stacked]


@pytest.mark.parametrize("layers", ["all", "convolutions"])
def test_is_adam_s_coupled_decay_of_the_kernels(layers, small_data, settings, build, tmp_path, alone):
    """The gradient of weight · Σ w² is 2 · weight · w, which is what Adam adds for weight_decay = 2 · weight."""
    data, weight = small_data(), 0.1
    create = build(data, **CONV)
    trained = alone(create, data, settings(l2={"weight": weight, "layers": layers}), 0, tmp_path).train()

    torch.manual_seed(0)
    model = create().to(memory_format=torch.channels_last)
    decayed = kernels(model, layers)
    rest = [p for p in model.parameters() if not any(p is kernel for kernel in decayed)]
    groups = [{"params": decayed, "weight_decay": 2 * weight}, {"params": rest}]
    plain = alone(create, data, settings(), 0, tmp_path / "order")
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    for epoch in range(2):
        order = mb.lab.data.Batches(data.train, 40, seed=0, epoch=epoch, channels_last=True)
        for batch in order:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x), batch.labels).backward()
            optimizer.step()
    ours = trained.model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5)
    without = plain.train().model.state_dict()
    moved = {name for name in ours if not torch.allclose(ours[name], without[name], atol=1e-3)}
    assert any("conv" in name or "network" in name or "weight" in name for name in moved)


def test_the_term_is_reported_unweighted_and_weighs_in(small_data, settings, build, tmp_path, alone):
    data = small_data()
    still = {"kind": "sgd", "lr": 0.0}
    trained = alone(build(data), data, settings(epochs=1, optimizer=still, l2={"weight": 0.5}), 0, tmp_path).train()
    entry = trained.metrics[0]["train"]
    expected = sum(kernel.square().sum().item() for kernel in kernels(trained.model, "all"))
    assert entry["terms"]["l2"] == pytest.approx(expected, rel=1e-6)
    assert entry["loss"] == pytest.approx(entry["terms"]["cross_entropy"] + 0.5 * expected, rel=1e-6)
    # Held-out and test rows are judged by what the model says of them alone.
    assert trained.metrics[0]["test"]["loss"] < entry["terms"]["cross_entropy"] + 0.5 * expected


@pytest.mark.parametrize("part", ["gate", "experts"])
def test_a_part_that_does_not_train_keeps_its_bits_and_is_not_counted(
    part, small_data, settings, build, tmp_path, alone
):
    data = small_data()
    penalised = settings(epochs=1, l2={"weight": 1.0}, **{part: {"freeze": True}})
    loop = alone(build(data), data, penalised, 0, tmp_path)
    before = [value.detach().clone() for value in parts(loop.model)[part]]
    other_part = {"gate": "experts", "experts": "gate"}[part]
    count = sum(value.square().sum().item() for value in parts(loop.model)[other_part] if value.ndim > 1)
    trained = loop.train()
    assert all(torch.equal(a, b) for a, b in zip(before, parts(trained.model)[part], strict=True))
    # Weights of the other part fall from the first step on, so that their mean square is below what it began with.
    assert 0 < trained.metrics[0]["train"]["terms"]["l2"] < count


def test_a_model_without_such_kernels_has_no_term(small_data, settings, build, tmp_path, alone):
    data = small_data()
    penalised = settings(epochs=1, l2={"weight": 1.0, "layers": "convolutions"})
    entry = alone(build(data), data, penalised, 0, tmp_path).train().metrics[0]["train"]
    assert list(entry["terms"]) == ["cross_entropy"]
