"""Initialisers that look for classes reach the experts of a stack as those of a list, in the same order."""

import pytest
import torch
from torch import nn

import moebius as mb

D, H, E = 64, 256, 8
FILL = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "kaiming_fan_out": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out"),
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, a=5**0.5),
    "orthogonal": nn.init.orthogonal_,
    "truncated": lambda weight: nn.init.trunc_normal_(weight, std=0.02),
    "data": lambda weight: weight.data.normal_(std=0.02),
    "other_data": lambda weight: setattr(weight, "data", torch.randn(weight.shape)),
}
IS_LINEAR = {"isinstance": lambda part: isinstance(part, nn.Linear), "type": lambda part: type(part) is nn.Linear}


def ffn():
    return [mb.experts.FFN(D, H) for _ in range(E)]


def mlp():
    return [mb.experts.MLP(D, 3, hidden=[H]) for _ in range(E)]


def pools(make):
    """Of equal values: a list, and a stack."""
    made = []
    for pool in (list, mb.Stack):
        torch.manual_seed(0)
        made.append(mb.Mixture(mb.gates.Linear(D, E), pool(make()), mb.routers.TopK(2)))
    return made


def equal(listed, stacked):
    for one, other in zip(listed.experts, stacked.experts, strict=True):
        for (name, value), (again, view) in zip(one.named_parameters(), other.named_parameters(), strict=True):
            assert name == again
            torch.testing.assert_close(view.detach(), value.detach(), rtol=0, atol=0)


def initialised(is_linear, fill):
    def init(part):
        if IS_LINEAR[is_linear](part):
            FILL[fill](part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)

    return init


@pytest.mark.parametrize("make", [ffn, mlp])
@pytest.mark.parametrize("is_linear", IS_LINEAR)
@pytest.mark.parametrize("fill", FILL)
def test_apply_draws_the_same_numbers_as_for_a_list(fill, is_linear, make):
    models = pools(make)
    before = [parameter.detach().clone() for parameter in models[1].experts.parameters()]
    for model in models:
        torch.manual_seed(1)
        assert model.apply(initialised(is_linear, fill)) is model
    equal(*models)
    assert not any(torch.equal(now, old) for now, old in zip(models[1].experts.parameters(), before, strict=True))
    assert torch.equal(models[0].gate.linear.weight, models[1].gate.linear.weight)


@pytest.mark.parametrize("fill", FILL)
def test_experts_one_by_one(fill):
    models = pools(ffn)
    for model in models:
        torch.manual_seed(1)
        for expert in model.experts:
            expert.apply(initialised("type", fill))
    equal(*models)
    for model in models:
        torch.manual_seed(2)
        for number in (3, -1):
            model.experts[number].inner.apply(initialised("isinstance", fill))
            model.experts[number].outer.reset_parameters()
    equal(*models)


def test_the_spread_is_that_of_a_layer_alone():
    """Of the D × H matrices of each expert, not of the tensor that holds all."""
    layer = mb.layers.SparseFFN(D, H, experts=E, k=2).apply(initialised("isinstance", "xavier_normal"))
    for expert in layer.mixture.experts:
        assert expert.inner.weight.std().item() == pytest.approx((2 / (D + H)) ** 0.5, rel=0.05)
    layer.apply(initialised("isinstance", "orthogonal"))
    for expert in layer.mixture.experts:
        torch.testing.assert_close(expert.inner.weight.T @ expert.inner.weight, torch.eye(D), rtol=0, atol=1e-5)


def reset_all(model):
    """As tools do it that give memory to modules made without."""
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()


def test_reset_parameters_of_every_module():
    models = pools(ffn)
    for model in models:
        torch.manual_seed(1)
        reset_all(model)
    equal(*models)


def test_reset_parameters_of_every_layer():
    """By class, `apply` reaches the experts of a stack; a walk over `modules()` finds none of their layers there."""
    models = pools(ffn)
    before = [parameter.detach().clone() for parameter in models[1].experts.parameters()]
    for part in models[1].modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    assert all(map(torch.equal, models[1].experts.parameters(), before))
    for model in models:
        torch.manual_seed(1)
        model.apply(lambda part: part.reset_parameters() if isinstance(part, nn.Linear) else None)
    equal(*models)
    assert not any(map(torch.equal, models[1].experts.parameters(), before))


def test_from_the_meta_device(name, build):
    """Made without memory, given some, and reset: all numbers are as of a model that had memory at once."""
    with torch.device("meta"):
        model = build(name)
    assert all(value.is_meta for value in model.state_dict().values())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    twin = build(name)
    for either in (model, twin):
        torch.manual_seed(1)
        reset_all(either)
    torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=0, atol=0)


def test_biases_and_modules_are_each_reached_once():
    """`apply` calls its function once for each expert's part and once for every other module."""
    counts = []
    for model in pools(ffn):
        called = []
        model.apply(lambda part, called=called: called.append(type(part)))
        counts.append([called.count(kind) for kind in (mb.experts.FFN, nn.Linear, mb.Mixture, mb.gates.Linear)])
        assert called[-1] is mb.Mixture
    assert counts[0] == counts[1] == [E, 2 * E + 1, 1, 1]


def test_what_walks_over_modules_finds_no_layer_that_is_not_one(model):
    """Whatever is an nn.Linear has the weight and the forward of one."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features)
    assert all(not list(part.children()) for part in model.modules() if isinstance(part, mb.Stack))
