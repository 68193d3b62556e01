"""A mixture with one expert more, less or exchanged scores and runs the others as before."""

import copy
import inspect

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.storage.spec import describe

E = 3
X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 5, "domains": E}


def linears(count=E):
    return [mb.experts.Linear(64, 5) for _ in range(count)]


def mixture(gate, router=None, count=E, **options):
    torch.manual_seed(1)
    return mb.Mixture(gate, linears(count), router, **options).eval()


def made(kind, outputs=E):
    torch.manual_seed(0)
    component = find("gates", kind)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
    facts = {**FACTS, "experts": outputs, "gate": inner}
    return component(**{name: facts[name] for name in inspect.signature(component).parameters if name in facts})


def scores(moe, x=X):
    with torch.no_grad():
        said = moe.gate.eval()(x)
    return said[0] if isinstance(said, tuple) else said


OWN = {
    "sequential": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, E), nn.Tanh(), nn.Linear(E, E), nn.Softplus()),
    "without a bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, E, bias=False)),
    "adapter": lambda: mb.experts.Adapter(nn.Sequential(nn.Flatten(), nn.Linear(64, E)), size=8),
}
# Gates that are made for their experts are refused; one of positions is in no such mixture.
MADE_FOR_EXPERTS = ("class_mass", "knora_eliminate", "knora_union", "output_linear", "own_mass")
ROW_GATES = [
    kind
    for kind in kinds("gates")
    if kind not in ("domain", *MADE_FOR_EXPERTS) and not hasattr(find("gates", kind), "by_position")
]
GATES = {kind: (lambda kind=kind: made(kind)) for kind in ROW_GATES} | OWN


@pytest.mark.parametrize("name", GATES)
def test_the_scores_of_the_other_experts_stay_as_they_are(name, tmp_path):
    moe = mixture(GATES[name]())
    before, state = scores(moe), copy.deepcopy(moe.state_dict())
    wider, fewer = mb.add_expert(moe, linears(1)[0]), mb.drop_expert(moe, 1)
    torch.testing.assert_close(scores(wider)[:, :E], before)
    torch.testing.assert_close(scores(fewer), before[:, [0, 2]])
    for one, experts in ((wider, E + 1), (fewer, E - 1)):
        assert one(X).shape == (7, 5)
        assert len(one.experts) == experts
        if "experts" in describe(one.gate):
            assert one.gate.experts == experts
            mb.save(one, tmp_path / str(experts))
            assert torch.equal(mb.load(tmp_path / str(experts))(X), one(X))
    assert list(wider.experts)[:E] == list(moe.experts)
    assert list(fewer.experts) == [moe.experts[0], moe.experts[2]]
    assert torch.equal(scores(moe), before)
    for key, tensor in moe.state_dict().items():
        assert torch.equal(tensor, state[key])


@pytest.mark.parametrize("kind", MADE_FOR_EXPERTS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_gate_that_knows_its_experts_is_refused_and_another_taken(kind, wrapped):
    """Also where a layer inside happens to have as many outputs as there are experts."""
    component = find("gates", kind)
    example = component.example({**FACTS, "classes": E, "experts": E}) if hasattr(component, "example") else {}
    gate = component(**(example or {"experts": E, "classes": 5}))
    moe = mixture(mb.gates.Standardised(gate, features=64) if wrapped else gate)
    for edit in (lambda **new: mb.add_expert(moe, linears(1)[0], **new), lambda **new: mb.drop_expert(moe, 1, **new)):
        with pytest.raises(ArgumentError, match=r"^gate: knows the experts by what they give"):
            edit()
        edited = edit(gate=mb.gates.Uniform(E + 1))
        assert edited.gate.experts == E + 1


def test_a_new_expert_begins_with_an_average_score_for_every_row():
    gate = mb.gates.Linear(64, 2)
    gate.linear.bias.data = torch.tensor([1.0, 4.0])
    wider = mb.add_expert(mixture(gate, count=2), linears(1)[0])
    assert scores(wider)[:, 2].tolist() == [2.5] * 7
    bare = mb.gates.Linear(64, 2, bias=False)
    wider = mb.add_expert(mixture(bare, count=2), linears(1)[0])
    torch.testing.assert_close(scores(wider)[:, 2], scores(wider)[:, :2].mean(1))


ROUTERS = {
    "heads": lambda experts: mb.routers.Heads(mb.routers.Soft(), heads=2),
    "noisy": lambda experts: mb.routers.NoisyTopK(2),
    "per class": lambda experts: mb.routers.PerClass(5),
    "heads of noise": lambda experts: mb.routers.Heads(mb.routers.NoisyTopK(1), heads=2),
    "biased": lambda experts: mb.routers.Heads(mb.routers.TopK(2, bias_rate=0.5, experts=experts), heads=2),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_rows_are_dropped_and_added_in_every_block(name):
    """Adding one and dropping it again, or dropping one that nobody can have chosen, is as before."""
    router = ROUTERS[name](E)
    moe = mixture(mb.gates.Linear(64, router.gate_outputs(E)), router)
    blocks = router.gate_outputs(E) // E
    wider = mb.add_expert(moe, linears(1)[0])
    before, after = scores(moe).unflatten(1, (blocks, E)), scores(wider).unflatten(1, (blocks, E + 1))
    torch.testing.assert_close(after[..., :E], before)
    again = mb.drop_expert(wider, E)
    assert torch.equal(again(X), moe(X))
    first = mb.drop_expert(moe, 0)
    torch.testing.assert_close(scores(first).unflatten(1, (blocks, E - 1)), before[..., 1:])
    first(X)


def test_a_balance_bias_keeps_its_numbers():
    router = mb.routers.TopK(2, bias_rate=0.5, experts=E)
    router.bias.copy_(torch.tensor([1.0, 2.0, 6.0]))
    moe = mixture(made("linear"), mb.routers.Cut(router)).train()
    wider, fewer = mb.add_expert(moe, linears(1)[0]), mb.drop_expert(moe, 0)
    assert wider.router.router.bias.tolist() == [1, 2, 6, 3]
    assert fewer.router.router.bias.tolist() == [2, 6]
    assert wider.router.router.training
    assert router.bias.tolist() == [1, 2, 6]


def test_what_is_kept_is_shared_and_what_is_changed_is_not():
    trunk = nn.Linear(64, 6)
    gate = nn.Sequential(nn.Flatten(), trunk, nn.Linear(6, E))
    moe = mixture(gate, mb.routers.TopK(2), combine=mb.HeadMean(), execution="loop")
    for one in (mb.add_expert(moe, linears(1)[0]), mb.drop_expert(moe, 0)):
        assert one.gate[1] is trunk
        assert one.gate[2] is not gate[2]
        assert one.router is moe.router
        assert one.combine is moe.combine
        assert one.execution is moe.execution
        assert not any(part.training for part in one.modules())
    registered = mixture(made("mlp"))
    wider = mb.add_expert(registered, linears(1)[0])
    assert wider.gate.network.layers[0].weight is registered.gate.network.layers[0].weight


def test_a_gate_that_knows_its_layer_by_another_name_too():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(64, E)
            self.layers = [self.out]

        def forward(self, x):
            return self.layers[0](x.flatten(1))

    assert mb.add_expert(mixture(Gate()), linears(1)[0])(X).shape == (7, 5)


def test_a_frozen_gate_in_double_stays_one():
    gate = nn.Sequential(nn.Flatten(), nn.Linear(64, E)).requires_grad_(False)
    for one in (gate, made("linear").requires_grad_(False)):
        wider = mb.add_expert(mixture(one).double(), linears(1)[0].double())
        assert not any(parameter.requires_grad for parameter in wider.gate.parameters())
        assert {parameter.dtype for parameter in wider.gate.parameters()} == {torch.float64}


def test_a_replaced_expert_answers_in_its_place():
    moe = mixture(made("linear"), mb.routers.Argmax())
    other = linears(1)[0]
    exchanged = mb.replace_expert(moe, 1, other)
    chosen = scores(moe).argmax(1)
    outputs = torch.stack([expert(X) for expert in exchanged.experts], 1)
    torch.testing.assert_close(exchanged(X), outputs[torch.arange(7), chosen])
    assert exchanged.gate is moe.gate
    assert exchanged.experts[1] is other
    assert moe.experts[1] is not other


def test_a_gate_can_be_given():
    router = mb.routers.DSelectK(2, experts=E)
    moe = mixture(made("linear", router.gate_outputs(E)), router)
    with pytest.raises(ArgumentError, match="gate: gives DSelectK numbers that are not one or more") as caught:
        mb.add_expert(moe, linears(1)[0])
    assert caught.value.fix == "gate=…, a new one that gives 6 numbers a row"
    wider = mb.add_expert(moe, linears(1)[0], gate=made("linear", 6))
    assert wider.router.experts == 4
    assert wider.router.selectors == 2
    assert wider(X).shape == (7, 5)
    one = mixture(made("linear", 2), mb.routers.DSelectK(1, experts=2), count=2)  # 2 numbers for 2, 3 for 3
    with pytest.raises(ArgumentError, match="gate: gives DSelectK"):
        mb.add_expert(one, linears(1)[0])
    told = mixture(made("domain"))
    assert mb.drop_expert(told, 0, gate=made("uniform", 2))(X).shape == (7, 5)


class Layer(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda moe: mb.drop_expert(moe, 3), "index: needs one of the 3 experts, 0 … 2"),
        (lambda moe: mb.drop_expert(moe, -1), "index: needs one of"),
        (lambda moe: mb.replace_expert(moe, 3, nn.Linear(64, 5)), "index: needs one of"),
        (lambda moe: mb.drop_expert(mixture(made("uniform", 1), count=1), 0), "index: names the only expert"),
        (
            lambda moe: mb.add_expert(mixture(made("domain")), nn.Linear(64, 5)),
            "gate: the domain gate needs one expert",
        ),
        (
            lambda moe: mb.add_expert(mixture(nn.Linear(64, 2)), nn.Linear(64, 5)),
            "gate: needs a linear layer that gives 3",
        ),
        (lambda moe: mb.add_expert(mixture(Layer(64, 3)), nn.Linear(64, 5)), "gate: needs a linear layer that gives 3"),
    ],
)
def test_what_cannot_be_done_is_refused(edit, said):
    with pytest.raises(ArgumentError) as caught:
        edit(mixture(made("linear")))
    assert str(caught.value).startswith(said)
    assert caught.value.fix or "index" in said


def test_one_more_for_a_saved_mixture(tmp_path):
    mb.save(mixture(made("linear"), mb.routers.TopK(1)), tmp_path)
    moe = mb.add_expert(mb.load(tmp_path), nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    mb.save(moe, tmp_path)
    again = mb.load(tmp_path, experts={3: nn.Sequential(nn.Flatten(), nn.Linear(64, 5))})
    assert torch.equal(again(X), moe(X))


def stacked(router=None):
    torch.manual_seed(1)
    return mb.Mixture(made("linear"), mb.Stack(linears()), router).eval()


def test_a_stack_stays_one_where_all_are_equal(tmp_path):
    moe = stacked(mb.routers.TopK(2))
    listed = mb.Mixture(moe.gate, moe.experts.unstacked(), moe.router).eval()
    new = linears(1)[0]
    for edit in (
        lambda one: mb.add_expert(one, new),
        lambda one: mb.drop_expert(one, 1),
        lambda one: mb.replace_expert(one, 1, new),
    ):
        edited, expected = edit(moe), edit(listed)
        assert isinstance(edited.experts, mb.Stack)
        assert len(edited.experts) == len(expected.experts)
        torch.testing.assert_close(edited(X), expected(X))
        assert all(parameter.is_leaf for parameter in edited.parameters())
        assert not any(part.training for part in edited.modules())
        mb.save(edited, tmp_path)
        assert torch.equal(mb.load(tmp_path)(X), edited(X))
    assert len(moe.experts) == E


def test_with_an_unlike_expert_it_becomes_a_list():
    moe = stacked()
    frozen = linears(1)[0].requires_grad_(False)
    for other in (mb.experts.MLP(64, 5, [3]), frozen):
        wider = mb.add_expert(moe, other)
        assert isinstance(wider.experts, nn.ModuleList)
        assert wider.experts[E] is other
        torch.testing.assert_close(wider.experts[0](X), moe.experts[0](X))
        torch.optim.SGD(wider.parameters(), lr=0.1)


def test_a_stacks_experts_are_copied():
    moe = stacked()
    wider = mb.add_expert(moe, linears(1)[0])
    with torch.no_grad():
        wider.experts.linear_weight.zero_()
    assert moe.experts.linear_weight.count_nonzero() > 0
