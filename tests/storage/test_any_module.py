"""A subclass of `Mixture`, a layer, any module with mixtures inside: saved, loaded, edited."""

import copy

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


class Scaled(mb.Mixture):
    """A mixture whose output has a scale."""

    def __init__(self, gate, experts):
        super().__init__(gate, experts)
        self.scale = nn.Parameter(torch.full((), 2.0))

    def forward(self, x, context=None, mask=None):
        return self.scale * super().forward(x, context, mask)


def scaled():
    return Scaled(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)])


def listed():
    return mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)])


def stacked():
    return mb.Mixture(mb.gates.Linear(4, 2), mb.Stack.of(lambda: mb.experts.Linear(4, 3), 2), mb.routers.TopK(1))


def layer():
    return mb.layers.SparseFFN(4, 6, experts=2, k=1, shared=1)


MODELS = {
    "subclass": scaled,
    "layer": layer,
    "network": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), listed(), nn.Linear(3, 2)),
    "network of stacks": lambda: nn.Sequential(layer(), nn.LayerNorm(4), stacked()),
    "one mixture twice": lambda: nn.Sequential(*[mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 4)] * 2)] * 2),
    "no mixture": lambda: nn.Linear(4, 2),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_module_comes_back_into_one_that_is_made_like_it(kind, tmp_path):
    torch.manual_seed(1)
    model = MODELS[kind]()
    mb.save(model, tmp_path)
    torch.manual_seed(2)
    fresh = MODELS[kind]()
    before = fresh(X)
    known = kind == "layer"
    loaded = mb.load(tmp_path) if known else mb.load(tmp_path, model=fresh)
    assert known or loaded is fresh
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(loaded(X), model.eval()(X))
    assert not torch.equal(loaded(X), before)


def test_a_module_that_has_to_be_supplied_is_named_with_the_call(tmp_path):
    mb.save(scaled(), tmp_path)
    with pytest.raises(ArgumentError, match=r"^model \(Scaled\): modules .* have to be supplied") as caught:
        mb.load(tmp_path)
    assert caught.value.fix == f"mb.load({str(tmp_path)!r}, model=Scaled(…))"
    wide = Scaled(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 5) for _ in range(2)])
    state = copy.deepcopy(wide.state_dict())
    with pytest.raises(ArgumentError, match=r"^model: its tensor experts\.0\.linear\.weight has the shape \(3, 4\)"):
        mb.load(tmp_path, model=wide)
    assert all(torch.equal(tensor, state[name]) for name, tensor in wide.state_dict().items())


def test_a_module_of_a_known_kind_is_not_supplied(tmp_path):
    mb.save(layer(), tmp_path)
    with pytest.raises(ArgumentError, match=r"^model: is supplied, and that place needs nothing"):
        mb.load(tmp_path, model=layer())
    with pytest.raises(ArgumentError, match=r"^experts: needs paths of parts"):
        mb.load(tmp_path, experts=[None, nn.Linear(4, 3)])


def test_a_class_that_is_registered_needs_nothing(tmp_path, register):
    class Doubled(mb.Mixture):
        """Twice the mixture."""

        def forward(self, x, context=None, mask=None):
            return 2 * super().forward(x, context, mask)

    register("layers", "doubled_in_a_test")(Doubled)
    model = Doubled(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)], mb.routers.TopK(1))
    mb.save(model, tmp_path)
    loaded = mb.load(tmp_path)
    assert type(loaded) is Doubled
    assert torch.equal(loaded(X), model.eval()(X))


@pytest.mark.parametrize("kind", ["subclass", "network"])
def test_an_expert_more_in_a_subclass_or_deep_inside(kind):
    torch.manual_seed(1)
    model = MODELS[kind]().eval()
    before = model(X)
    wider = mb.add_expert(model, mb.experts.Linear(4, 3))
    assert type(wider) is type(model)
    inner, old = (wider, model) if kind == "subclass" else (wider[2], model[2])
    assert (len(inner.experts), len(old.experts)) == (3, 2)
    assert inner.experts[0] is old.experts[0]
    assert torch.equal(model(X), before)
    if kind == "subclass":
        assert wider.scale is model.scale
    else:
        assert wider[0] is model[0]
        assert wider[3] is model[3]
    narrower = mb.drop_expert(wider, 2)
    torch.testing.assert_close(narrower(X), before)
    replaced = mb.replace_expert(model, 1, inner.experts[2])
    assert (replaced if kind == "subclass" else replaced[2]).experts[1] is inner.experts[2]
    inner.load_state_dict(inner.state_dict())


def test_an_expert_more_in_a_layer(tmp_path):
    torch.manual_seed(1)
    model = layer().eval()
    wider = mb.add_expert(model, mb.experts.FFN(4, 6))
    assert (wider.experts, model.experts) == (3, 2)
    assert isinstance(wider.mixture.experts, mb.Stack)
    assert wider.block is model.block
    mb.save(wider, tmp_path)
    assert torch.equal(mb.load(tmp_path)(X), wider(X))


def test_which_mixture_is_meant_has_to_be_said():
    model = nn.Sequential(listed(), nn.Identity(), nn.Sequential(nn.Linear(3, 4), listed()))
    with pytest.raises(ArgumentError, match=r"^at: needs the path of a mixture, for there are several") as caught:
        mb.add_expert(model, mb.experts.Linear(4, 3))
    assert caught.value.fix == "at='0' or at='2.1'"
    wider = mb.add_expert(model, mb.experts.Linear(4, 3), at="2.1")
    assert [len(part.experts) for part in (wider[0], wider[2][1], model[2][1])] == [2, 3, 2]
    assert wider[0] is model[0]
    with pytest.raises(ArgumentError, match=r"^at: names no mixture") as caught:
        mb.drop_expert(model, 0, at="1")
    assert caught.value.fix == "at='0' or at='2.1'"
    with pytest.raises(ArgumentError, match=r"^model: holds no mixture"):
        mb.drop_expert(nn.Linear(4, 2), 0)
