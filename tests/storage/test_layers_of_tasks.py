"""Layers with a gate for each task or position: saved, loaded, edited, alone and inside a network."""

import json

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.storage.spec import build, describe

TASKS = ("click", "price")


def linear(features, outputs):
    return mb.experts.Linear(features, outputs)


def several_gates(stack=False, router=None, towers=True):
    experts = [mb.experts.MLP(4, 6, hidden=(5,)) for _ in range(3)]
    gates = {task: mb.gates.Linear(4, 3) for task in TASKS}
    towers = {"click": linear(6, 2), "price": linear(6, 1)} if towers else None
    return mb.layers.MultiGateMixture(gates, mb.Stack(experts) if stack else experts, towers, router)


def level(features=4, is_last=True):
    gates = {task: mb.gates.Linear(features, 3) for task in TASKS}
    gates |= {} if is_last else {"shared": mb.gates.Linear(features, 4)}
    own = {task: [mb.experts.MLP(features, 6)] for task in TASKS}
    shared = mb.Stack([mb.experts.MLP(features, 6) for _ in range(2)])
    return mb.layers.CGC(gates, own, shared, {task: linear(6, 1) for task in TASKS} if is_last else None)


def positions(stack=False, **options):
    experts = [linear(4, 3) for _ in range(2)]
    return mb.layers.PositionMixture(mb.gates.Linear(4, 2), mb.Stack(experts) if stack else experts, **options)


MODELS = {
    "several gates": several_gates,
    "over a stack": lambda: several_gates(stack=True),
    "without towers": lambda: several_gates(towers=False),
    "routers by task": lambda: several_gates(router={"click": mb.routers.TopK(2), "price": mb.routers.Soft(0.5)}),
    "own experts": level,
    "levels": lambda: mb.layers.PLE([level(4, is_last=False), level(6)]),
    "positions": lambda: positions(router=mb.routers.TopK(1)),
    "positions over a stack": lambda: positions(stack=True, combine=mb.LogMixture()),
}


def batch(name):
    return torch.randn(5, 7, 4) if name.startswith("positions") else torch.randn(5, 4)


def assert_equal(outputs, expected):
    if isinstance(expected, torch.Tensor):
        outputs, expected = {"": outputs}, {"": expected}
    assert list(outputs) == list(expected)
    assert all(torch.equal(outputs[task], expected[task]) for task in expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inside", [False, True])
def test_it_comes_back(name, inside, tmp_path):
    model = MODELS[name]()
    model = (nn.Sequential(linear(4, 4), model) if inside else model).eval()
    mb.save(model, tmp_path)
    torch.manual_seed(1)
    loaded, x = mb.load(tmp_path), batch(name)
    assert_equal(loaded(x), model(x))
    assert describe(loaded) == describe(model) == json.loads(json.dumps(describe(model)))
    stacks = [path for path, part in model.named_modules() if isinstance(part, mb.Stack)]
    assert [path for path, part in loaded.named_modules() if isinstance(part, mb.Stack)] == stacks


def test_a_channel_axis_and_a_changed_temperature_come_back(tmp_path):
    model = mb.layers.PositionMixture(nn.Conv2d(3, 2, 1), [nn.Conv2d(3, 5, 1) for _ in range(2)], channel_axis=1)
    model.router.temperature = 0.25
    mb.save(model.eval(), tmp_path)
    loaded = mb.load(tmp_path, gate=nn.Conv2d(3, 2, 1), experts=[nn.Conv2d(3, 5, 1) for _ in range(2)])
    assert (loaded.channel_axis, loaded.router.temperature) == (1, 0.25)
    assert torch.equal(loaded(torch.ones(1, 3, 4, 4)), model(torch.ones(1, 3, 4, 4)))


def test_an_expert_of_two_tasks_is_stored_once(tmp_path):
    common = linear(4, 6)
    gates = {task: mb.gates.Linear(4, 2) for task in TASKS}
    model = mb.layers.CGC(gates, {task: [common] for task in TASKS}, [linear(4, 6)]).eval()
    mb.save(model, tmp_path)
    loaded = mb.load(tmp_path)
    assert loaded.experts["click"][0] is loaded.experts["price"][0]
    assert_equal(loaded(torch.ones(2, 4)), model(torch.ones(2, 4)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 6)

    def forward(self, x):
        return self.inner(x).tanh()


def test_modules_of_no_known_kind_are_supplied_by_their_paths(tmp_path):
    gates = {task: nn.Linear(4, 3) for task in TASKS}
    towers = {"click": nn.Linear(6, 2), "price": linear(6, 1)}
    model = mb.layers.MultiGateMixture(gates, mb.Stack([Net() for _ in range(3)]), towers).eval()
    mb.save(model, tmp_path)
    with pytest.raises(ArgumentError, match=r"^gates\.click \(Linear\), .*experts \(Stack of Net\)") as caught:
        mb.load(tmp_path)
    names = {
        "gates.click": lambda: nn.Linear(4, 3),
        "gates.price": lambda: nn.Linear(4, 3),
        "experts": lambda: mb.Stack([Net() for _ in range(3)]),
        "towers.click": lambda: nn.Linear(6, 2),
    }
    classes = ["Linear(…)", "Linear(…)", "mb.Stack([Net(…), …])", "Linear(…)"]
    entries = ", ".join(f"{name!r}: {text}" for name, text in zip(names, classes, strict=True))
    assert caught.value.fix == f"mb.load({str(tmp_path)!r}, experts={{{entries}}})"
    loaded = mb.load(tmp_path, experts={name: make() for name, make in names.items()})
    assert_equal(loaded(torch.ones(2, 4)), model(torch.ones(2, 4)))


def test_what_a_layer_refuses_is_named_by_its_place():
    spec = describe(nn.Sequential(level()))
    spec["parts"][0]["gates"]["named"]["extra"] = spec["parts"][0]["gates"]["named"]["click"]
    with pytest.raises(ArgumentError, match=r"^0\.experts: needs an entry for each of click, price, extra"):
        build(spec)


@pytest.mark.parametrize("stack", [False, True])
def test_a_mixture_of_positions_gets_another_number_of_experts(stack, tmp_path):
    model, x = positions(stack).eval(), torch.randn(3, 7, 4)
    wider = mb.add_expert(nn.Sequential(model), linear(4, 3))
    assert wider[0].count == 3
    assert isinstance(wider[0].experts, mb.Stack) is stack
    torch.testing.assert_close(mb.drop_expert(wider, 2)(x), model(x))
    mb.save(wider, tmp_path)
    assert torch.equal(mb.load(tmp_path)(x), wider(x))
    exchanged = mb.replace_expert(model, 0, model.experts[1])
    torch.testing.assert_close(exchanged(x), model.experts[1](x))


def test_a_gate_of_pixels_gets_a_score_more_and_one_less(tmp_path):
    gate, experts = mb.gates.UNet(1, 2, filters=[3]), [mb.experts.UNet(1, 3, filters=[2]) for _ in range(2)]
    model, x = mb.layers.PositionMixture(gate, experts, channel_axis=1).eval(), torch.rand(2, 1, 4, 4)
    wider = mb.add_expert(model, mb.experts.UNet(1, 3, filters=[2]))
    torch.testing.assert_close(wider.gate(x)[:, :2], gate(x))
    torch.testing.assert_close(mb.drop_expert(wider, 2)(x), model(x))
    mb.save(wider, tmp_path)
    assert torch.equal(mb.load(tmp_path)(x), wider(x))


@pytest.mark.parametrize("make", [several_gates, level])
def test_a_gate_for_each_task_is_not_edited(make):
    name = make().__class__.__name__
    for model, path in ((make(), "model"), (nn.Sequential(make()), "0")):
        with pytest.raises(ArgumentError, match=rf"^{path}: has a gate for each task.*{name}") as caught:
            mb.add_expert(model, linear(4, 6))
        assert f"mb.layers.{name}(" in caught.value.fix


def test_a_mixture_among_the_experts_of_several_tasks_is_edited():
    inner = [mb.Mixture(mb.gates.Linear(4, 2), [linear(4, 6) for _ in range(2)]) for _ in range(2)]
    model = mb.layers.MultiGateMixture({task: mb.gates.Linear(4, 2) for task in TASKS}, inner).eval()
    wider = mb.add_expert(model, linear(4, 6), at="experts.1")
    assert [expert.count for expert in wider.experts] == [2, 3]
    with pytest.raises(ArgumentError, match=r"^model: has a gate for each task"):
        mb.add_expert(model, linear(4, 6), at="")
