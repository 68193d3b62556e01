"""Layers of a recipe with gates, experts and towers in them."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.cost import multiply_adds
from moebius.lab.model.resolve import resolve
from moebius.storage.spec import describe

TASKS = {"price": 1, "cut": 5}
FACTS = {"features": 10, "cardinalities": [], "classes": 6, "outputs": TASKS, "domains": 1}
IMAGES = {"features": 64, "channels": 1, "size": 8, "classes": 3, "positions": [8, 8], "domains": 1}
GATE, TOWER = {"kind": "linear"}, {"kind": "linear"}


def mlp(**keys):
    return {"kind": "mlp", "hidden": [7], **keys}


SEVERAL = {
    "kind": "multi_gate_mixture",
    "gates": GATE,
    "experts": mlp(classes=16, count=4),
    "towers": TOWER,
    "router": {"kind": "top_k", "k": 2},
}
BY_NAME = {
    "kind": "multi_gate_mixture",
    "gates": {"price": {"kind": "mlp"}, "cut": GATE},
    "experts": [mlp(classes=16), {"kind": "linear", "classes": 16, "count": 2}],
    "towers": {"cut": {"kind": "mlp", "hidden": [3]}, "price": TOWER},
    "router": {"price": {"kind": "soft"}, "cut": {"kind": "dselect_k", "k": 2}},
}
OWN = {
    "kind": "cgc",
    "gates": GATE,
    "experts": {"price": mlp(classes=16), "cut": mlp(classes=16, count=2)},
    "shared": mlp(classes=16, count=2),
    "towers": TOWER,
}
LEVEL = {"gates": GATE, "experts": mlp(classes=16), "shared": mlp(classes=16, count=2)}
LEVELS = {"kind": "ple", "levels": [LEVEL, {**LEVEL, "kind": "cgc", "towers": TOWER}]}
LAYERS = {"several": SEVERAL, "by name": BY_NAME, "own": OWN, "levels": LEVELS}
PIXELS = {
    "kind": "position_mixture",
    "gate": {"kind": "unet", "filters": [4]},
    "experts": {"kind": "unet", "filters": [4], "count": 2},
    "router": {"kind": "top_k", "k": 1},
}


def shapes(outputs):
    return {name: tuple(output.shape) for name, output in outputs.items()}


@pytest.mark.parametrize("before", [[], [{"kind": "linear", "classes": 9}]], ids=["alone", "after a part"])
@pytest.mark.parametrize("name", LAYERS)
def test_each_task_has_its_outputs(name, before):
    part = {"layers": [*before, LAYERS[name]]}
    model = build_model(part, FACTS)
    assert shapes(model(torch.rand(4, 10))) == {"price": (4, 1), "cut": (4, 5)}
    assert describe(model, "experts") == resolve(part, FACTS)
    assert isinstance(model, nn.Sequential) == bool(before)


def test_one_entry_stands_for_each_task_a_copy_each():
    model = build_model({"layers": [SEVERAL]}, FACTS)
    assert isinstance(model.experts, mb.Stack)
    assert [type(part).__name__ for part in (*model.gates.values(), *model.towers.values())] == ["Linear"] * 4
    assert model.gates["price"] is not model.gates["cut"]
    assert model.router["price"] is not model.router["cut"]
    assert {task: tuple(tower.linear.weight.shape) for task, tower in model.towers.items()} == {
        "price": (1, 16),
        "cut": (5, 16),
    }


def test_a_mapping_has_an_entry_by_name_and_routers_say_how_many_scores_a_gate_gives():
    model = build_model({"layers": [BY_NAME]}, FACTS)
    assert isinstance(model.experts, nn.ModuleList)
    assert type(model.gates["price"]).__name__ == "MLP"
    assert model.gates["cut"].experts == model.router["cut"].gate_outputs(3) != 3
    assert list(model.towers) == list(TASKS)


def test_gates_of_levels_score_own_and_shared_experts():
    own = build_model({"layers": [OWN]}, FACTS)
    assert {task: gate.experts for task, gate in own.gates.items()} == {"price": 3, "cut": 4}
    first, last = build_model({"layers": [LEVELS]}, FACTS).levels
    assert {name: gate.experts for name, gate in first.gates.items()} == {"price": 3, "cut": 3, "shared": 4}
    assert {name: gate.features for name, gate in last.gates.items()} == {"price": 16, "cut": 16}
    level = {**LEVEL, "gates": {"price": GATE, "cut": GATE, "shared": {"kind": "mlp"}}}
    model = build_model({"layers": [{**LEVELS, "levels": [level, LEVELS["levels"][1]]}]}, FACTS)
    assert type(model.levels[0].gates["shared"]).__name__ == "MLP"


def test_without_towers_the_experts_give_the_outputs():
    part = {"kind": "multi_gate_mixture", "gates": GATE, "experts": mlp(count=2)}
    model = build_model({"layers": [part]}, {**FACTS, "outputs": {"a": 3, "b": 3}})
    assert shapes(model(torch.rand(4, 10))) == {"a": (4, 3), "b": (4, 3)}


def test_a_task_may_have_any_name_that_a_part_can_have():
    facts = {**FACTS, "outputs": {"kind": 2, "shared_task": 3}}
    part = {**SEVERAL, "gates": {"kind": GATE, "shared_task": {"kind": "mlp"}}}
    assert type(build_model({"layers": [part]}, facts).gates["kind"]).__name__ == "Linear"


def test_weights_of_each_pixel():
    model = build_model({"layers": [PIXELS]}, IMAGES)
    assert isinstance(model, mb.layers.PositionMixture)
    assert model.channel_axis == 1
    assert model(torch.rand(4, 1, 8, 8)).shape == (4, 3, 8, 8)
    inner = {**PIXELS, "experts": {"kind": "unet", "classes": 5, "count": 2}}
    model = build_model({"layers": [inner, PIXELS]}, IMAGES)
    assert model(torch.rand(4, 1, 8, 8)).shape == (4, 3, 8, 8)
    assert describe(model) == resolve({"layers": [inner, PIXELS]}, IMAGES)


def test_channels_stand_behind_the_positions_of_rows():
    part = {"kind": "position_mixture", "gate": GATE, "experts": {"kind": "linear", "count": 2}}
    model = build_model({"layers": [part]}, {"features": 6, "classes": 3, "domains": 1})
    assert model.channel_axis == -1
    assert model(torch.rand(4, 5, 6)).shape == (4, 5, 3)


def test_the_cost_counts_each_expert_once():
    experts, towers = 10 * 7 + 7 * 16, 16 * 1 + 16 * 5
    soft = {**SEVERAL, "router": {"kind": "soft"}}
    mixing = 2 * 4 * 16
    assert multiply_adds(build_model({"layers": [soft]}, FACTS), FACTS) == 2 * 40 + 4 * experts + towers + mixing


def test_a_stage_is_an_expert_and_a_tower():
    stage = {"model": {"gate": {"kind": "uniform"}, "experts": mlp(classes=16)}, "part": "experts.0", "facts": FACTS}
    stages = StageNetworks({"net": {**stage, "classes": None}})
    net = {"kind": "stage", "stage": "net"}
    part = {**SEVERAL, "experts": [net, mlp(classes=16)], "towers": {"price": TOWER, "cut": TOWER}}
    model = build_model({"layers": [part]}, FACTS, stages)
    assert list(stages.adapters.values()) == [model.experts[0]]
    own = {**OWN, "experts": {"price": net, "cut": mlp(classes=16)}, "shared": net}
    stages = StageNetworks({"net": {**stage, "classes": None}})
    model = build_model({"layers": [own]}, FACTS, stages)
    assert list(stages.adapters.values()) == [model.experts["price"][0]]
    assert model.shared[0] is model.experts["price"][0]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({**SEVERAL, "experts": mlp(count=2)}, r"layers\.0\.experts\.classes: is missing, and does not follow"),
        ({**SEVERAL, "towers": None}, r"layers\.0\.towers: is missing, and the tasks have different numbers"),
        ({**SEVERAL, "gates": {"prise": GATE}}, r"layers\.0\.gates\.prise: no such task"),
        ({**SEVERAL, "gates": {"price": GATE}}, r"layers\.0\.gates: needs an entry for each of price, cut"),
        ({**SEVERAL, "gates": {"price": GATE, "cut": mlp(hidden=[0])}}, r"layers\.0\.gates\.cut\.hidden: needs whole"),
        ({**SEVERAL, "towers": mlp(hidden=[0])}, r"layers\.0\.towers\.hidden: needs whole"),
        ({**SEVERAL, "experts": mlp(classes=4, count=0)}, r"layers\.0\.experts\.count: needs a whole number"),
        ({**SEVERAL, "router": {"kind": "top_k", "k": 0}}, r"layers\.0\.router\.k: "),
        ({**OWN, "shared": mlp(count=2)}, r"layers\.0\.shared\.classes: is missing"),
        ({**LEVELS, "levels": [{**LEVEL, "towers": TOWER}] * 2}, r"layers\.0\.levels\.0\.towers: must be left out"),
        ({**LEVELS, "levels": [LEVEL, LEVEL]}, r"layers\.0\.levels\.1\.towers: is missing"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(part, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        build_model({"layers": [part]}, FACTS)(torch.rand(2, 10))


def test_a_layer_of_several_tasks_needs_them_and_is_the_last():
    with pytest.raises(ArgumentError, match=r"^layers\.0\.kind: gives an output for each of several tasks") as caught:
        build_model({"layers": [SEVERAL]}, {"features": 10, "classes": 6, "domains": 1})
    assert caught.value.fix == "kind: mixture"
    with pytest.raises(ArgumentError, match=r"^layers\.0\.kind: .* only the last part can"):
        build_model({"layers": [SEVERAL, {"kind": "linear"}]}, FACTS)
