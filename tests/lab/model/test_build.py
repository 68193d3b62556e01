"""Mixtures built from the `model` part of a recipe, and their multiply-adds."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.cost import multiply_adds
from moebius.lab.model.resolve import resolve
from moebius.lab.model.shapes import row_shape
from moebius.storage.spec import build as build_spec
from moebius.storage.spec import describe
from moebius.storage.tensors import stored_tensors

FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
IMAGES = torch.rand(5, 1, 8, 8)


def test_defaults_and_facts_of_the_data():
    moe = build_model({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}}, FACTS)
    assert [type(expert) for expert in moe.experts] == [mb.experts.Linear] * 3
    assert moe.gate.linear.out_features == 3
    assert moe.experts[0].linear.weight.shape == (20, 64)
    assert moe.experts[0].linear.weight is not moe.experts[1].linear.weight
    assert isinstance(moe.router, mb.routers.Soft)
    assert isinstance(moe.combine, mb.WeightedSum)
    assert type(moe.execution) is mb.execution.Auto
    assert moe(IMAGES).shape == (5, 20)


def test_every_part_follows_the_spec():
    spec = {
        "gate": {"kind": "mlp", "hidden": [7, 5]},
        "experts": {"kind": "conv", "filters": [3], "hidden": [4], "count": 2},
        "router": {"kind": "argmax"},
        "combine": {"kind": "log_mixture"},
        "execution": "loop",
    }
    moe = build_model(spec, FACTS)
    assert [tuple(p.shape) for p in moe.gate.parameters() if p.ndim == 2] == [(7, 64), (5, 7), (2, 5)]
    assert isinstance(moe.router, mb.routers.Argmax)
    assert isinstance(moe.combine, mb.LogMixture)
    assert type(moe.execution) is mb.execution.Loop
    assert spec["experts"] == {"kind": "conv", "filters": [3], "hidden": [4], "count": 2}


def test_different_experts_each_with_a_count():
    experts = [{"kind": "linear", "count": 2}, {"kind": "mlp", "hidden": [3]}]
    moe = build_model({"gate": {"kind": "linear"}, "experts": experts}, FACTS)
    assert [type(expert).__name__ for expert in moe.experts] == ["Linear", "Linear", "MLP"]
    assert moe.gate.linear.out_features == 3
    assert moe(IMAGES).shape == (5, 20)


def test_a_mixture_is_an_expert():
    inner = {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}, "count": 2}
    moe = build_model({"gate": {"kind": "domain"}, "router": {"kind": "argmax"}, "experts": inner}, FACTS)
    assert [type(expert) for expert in moe.experts] == [mb.Mixture, mb.Mixture]
    assert [expert.gate.linear.out_features for expert in moe.experts] == [3, 3]
    y, log = mb.call(moe, IMAGES, {"domain": torch.tensor([0, 1, 1, 0, 1])})
    assert y.shape == (5, 20)
    assert [log[f"experts.{e}"][0].rows.tolist() for e in range(2)] == [[0, 3], [1, 2, 4]]


def test_a_value_in_the_spec_takes_precedence_over_the_facts():
    moe = build_model({"gate": {"kind": "uniform"}, "experts": {"kind": "linear", "classes": 7}}, FACTS)
    assert moe(IMAGES).shape == (5, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": {"kind": "mlp", "hidden": []}}, r"gate\.hidden: needs at least one width, got \[\]"),
        ({"gate": {"kind": "domain"}}, r"gate\.experts: the domain gate needs one expert per domain"),
        ({"experts": {"kind": "mlp", "hidden": [0]}}, r"experts\.hidden: needs whole numbers of at least 1"),
        ({"experts": {"kind": "linear", "count": 0}}, r"experts\.count: needs a whole number of at least 1, got 0"),
        ({"experts": {"kind": "linear", "count": "2"}}, r"experts\.count: needs a whole number of at least 1, got '2'"),
        (
            {"experts": [{"kind": "linear"}, {"kind": "conv", "filters": [1, 1, 1, 1]}]},
            r"experts\.1\.filters: an image 8 pixels wide can be halved 3 times",
        ),
        (
            {
                "experts": [
                    {"kind": "linear"},
                    {"kind": "mixture", "gate": {"kind": "mlp", "hidden": []}, "experts": {"kind": "linear"}},
                ]
            },
            r"experts\.1\.gate\.hidden: needs at least one width",
        ),
        ({"experts": []}, "experts: needs at least one expert"),
    ],
)
def test_a_refused_value_is_named_by_its_path(changes, message):
    spec = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}, **changes}
    with pytest.raises(ArgumentError, match=f"^{message}"):
        build_model(spec, FACTS)


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"gate": {"kind": "lineer"}}, "did you mean linear"),
        ({"experts": [{"kind": "cnv"}]}, "did you mean conv"),
        ({"combine": {"kind": "weighted"}}, "did you mean weighted_sum"),
        ({"execution": "looop"}, "did you mean loop"),
    ],
)
def test_unknown_kinds(changes, fix):
    with pytest.raises(UnknownKindError, match=fix):
        build_model({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}, **changes}, FACTS)


def build(gate, experts, **parts):
    return build_model({"gate": gate, "experts": experts, **parts}, FACTS)


SPARSE = {"gate": {"kind": "linear"}, "router": {"kind": "top_k", "k": 2}}


@pytest.mark.parametrize(
    ("changes", "is_stack"),
    [
        ({}, True),
        ({"experts": [{"kind": "mlp", "hidden": [4], "count": 3}, {"kind": "mlp", "hidden": [4]}]}, True),
        ({"experts": {"kind": "ffn", "hidden": 4, "count": 3}, "router": {"kind": "relu"}}, True),
        ({"router": {"kind": "soft"}}, True),
        ({"experts": {"kind": "conv", "filters": [2], "count": 3}}, False),
        ({"experts": {"kind": "mlp", "hidden": [4], "dropout": 0.5, "count": 3}}, False),
        ({"experts": [{"kind": "mlp", "hidden": [4], "count": 3}, {"kind": "linear"}]}, False),
        ({"experts": {"kind": "mixture", **SPARSE, "experts": {"kind": "linear", "count": 3}, "count": 3}}, False),
    ],
)
def test_equal_experts_of_dense_layers_are_stacked(changes, is_stack):
    spec = {**SPARSE, "experts": {"kind": "mlp", "hidden": [4], "count": 4}, **changes}
    torch.manual_seed(0)
    moe = build_model(spec, FACTS)
    torch.manual_seed(0)
    resolved = resolve(spec, FACTS)
    experts = resolved["experts"]
    listed = build_spec({**resolved, "experts": [experts["expert"]] * experts["count"] if is_stack else experts})
    assert isinstance(moe.experts, mb.Stack) == is_stack
    assert isinstance(listed.experts, nn.ModuleList)
    tensors, others = stored_tensors(moe), stored_tensors(listed)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_value_that_a_stacked_expert_refuses_is_named_by_its_path():
    spec = {**SPARSE, "experts": [{"kind": "mlp", "hidden": [0], "count": 3}]}
    with pytest.raises(ArgumentError, match=r"^experts\.0\.hidden: needs whole numbers"):
        build_model(spec, FACTS)


def test_parts_draw_their_numbers_in_the_order_experts_router_gate():
    torch.manual_seed(0)
    moe = build_model({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, FACTS)
    torch.manual_seed(0)
    experts, gate = [mb.experts.Linear(64, 20) for _ in range(2)], mb.gates.Linear(64, 2)
    assert torch.equal(moe.experts[1].linear.weight, experts[1].linear.weight)
    assert torch.equal(moe.gate.linear.weight, gate.linear.weight)


def test_layers_take_the_outputs_of_those_before_them():
    inner = {"kind": "mixture", **SPARSE, "experts": {"kind": "linear", "classes": 12, "count": 3}}
    sparse = {"kind": "sparse_ffn", "hidden": 8, "experts": 4, "k": 2}
    model = build_model({"layers": [inner, sparse, {"kind": "linear"}]}, FACTS)
    assert isinstance(model, nn.Sequential)
    assert (model[0].gate.linear.in_features, model[1].dim, model[2].linear.weight.shape) == (64, 12, (20, 12))
    y, log = mb.call(model, IMAGES)
    assert y.shape == (5, 20)
    assert list(log) == ["0", "1.mixture"]
    assert describe(model) == resolve({"layers": [inner, sparse, {"kind": "linear"}]}, FACTS)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"kind": "linear"}, {"kind": "linear"}], r"layers\.0\.classes: is missing, and does not follow"),
        (
            [{"kind": "linear", "classes": 6}, {"kind": "conv", "filters": [2]}],
            r"layers\.1\.channels: is missing, and does not follow",
        ),
        (
            [{"kind": "linear", "classes": 6}, {"kind": "linear", "features": 7, "classes": 6}, {"kind": "linear"}],
            r"layers\.1: does not run on what it gets, .* \(features: no trailing axes",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        build_model({"layers": layers}, FACTS)


def test_multiply_adds_of_linear_experts():
    single = build({"kind": "uniform"}, {"kind": "linear"}, combine={"kind": "log_mixture"})
    assert multiply_adds(single, FACTS) == 64 * 20
    pair = build({"kind": "linear"}, {"kind": "linear", "count": 2}, combine={"kind": "log_mixture"})
    assert multiply_adds(pair, FACTS) == 64 * 2 + 2 * 64 * 20


def test_experts_that_are_not_chosen_cost_nothing():
    sparse = {"router": {"kind": "argmax"}, "combine": {"kind": "log_mixture"}}
    assert multiply_adds(build({"kind": "domain"}, {"kind": "linear", "count": 2}, **sparse), FACTS) == 64 * 20
    assert multiply_adds(build({"kind": "linear"}, {"kind": "linear", "count": 9}, **sparse), FACTS) == 64 * 9 + 64 * 20


def test_multiply_adds_of_a_convolutional_expert():
    # 8×8 positions × 9 taps × 1 → 4 maps, 4×4 × 9 × 4 → 6, then 2·2·6 → 5 → 20.
    conv = build(
        {"kind": "uniform"}, {"kind": "conv", "filters": [4, 6], "hidden": [5]}, combine={"kind": "log_mixture"}
    )
    assert multiply_adds(conv, FACTS) == 64 * 9 * 4 + 16 * 9 * 4 * 6 + 24 * 5 + 5 * 20


def test_the_weighted_sum_counts_too():
    pair = build({"kind": "uniform"}, {"kind": "linear", "count": 2})
    assert multiply_adds(pair, FACTS) == 2 * 64 * 20 + 2 * 20


def test_counting_does_not_change_the_model():
    moe = mb.Mixture(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
        [nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.Dropout(0.5))],
    )
    moe.experts[0].eval()
    modes = [module.training for module in moe.modules()]
    before = {name: value.clone() for name, value in moe.state_dict().items()}
    multiply_adds(moe, FACTS)
    assert [module.training for module in moe.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in moe.state_dict().items())
    assert all(parameter.grad is None for parameter in moe.parameters())


def test_the_outputs_of_a_stage_inside_another_are_mapped_to_those_of_the_other():
    linear = {"gate": {"kind": "uniform"}, "experts": {"kind": "linear"}}
    inner = {
        "model": linear,
        "part": "experts.0",
        "facts": {**FACTS, "classes": 2},
        "classes": [5, 1],
        "labels": [5, 1],
    }
    around = {"gate": {"kind": "uniform"}, "experts": {"kind": "stage", "stage": "inner"}}
    outer = {"model": around, "part": "", "facts": {**FACTS, "classes": 3}, "classes": [1, 0, 5], "labels": [1, 0, 5]}
    spec = {"gate": {"kind": "uniform"}, "experts": {"kind": "stage", "stage": "outer"}}
    moe = build_model(spec, {**FACTS, "classes": 6}, StageNetworks({"inner": inner, "outer": outer}))
    x = torch.rand(2, FACTS["channels"], FACTS["size"], FACTS["size"])
    network = moe.experts[0].network.experts[0].network
    assert moe.experts[0].network.experts[0].classes == (2, 0)
    logit_of_5, logit_of_1 = network(x).unbind(1)
    expected = torch.full((2, 6), -torch.inf)
    expected[:, 5], expected[:, 1] = logit_of_5, logit_of_1
    torch.testing.assert_close(moe.experts[0](x), expected)


def test_a_stage_with_classes_that_its_user_lacks_is_refused():
    linear = {"gate": {"kind": "uniform"}, "experts": {"kind": "linear"}}
    inner = {"model": linear, "part": "experts.0", "facts": FACTS, "classes": [0, 2], "labels": None}
    around = {"gate": {"kind": "uniform"}, "experts": {"kind": "stage", "stage": "inner"}}
    outer = {"model": around, "part": "", "facts": {**FACTS, "classes": 2}, "classes": [0, 1], "labels": [0, 1]}
    spec = {"gate": {"kind": "uniform"}, "experts": {"kind": "stage", "stage": "outer"}}
    with pytest.raises(ArgumentError, match="has outputs for classes that the stage which uses it has no outputs for"):
        build_model(spec, FACTS, StageNetworks({"inner": inner, "outer": outer}))


def test_a_table_fills_in_features_and_cardinalities():
    facts = {"features": 5, "cardinalities": [3, 4], "classes": 2, "domains": 1}
    part = {"gate": {"kind": "table", "hidden": []}, "experts": {"kind": "table", "count": 2, "numeric": "piecewise"}}
    moe = build_model(part, facts)
    assert moe.gate.cardinalities == moe.experts[1].cardinalities == (3, 4)
    assert moe(torch.zeros(6, 5)).shape == (6, 2)


def test_a_component_for_images_says_that_a_table_has_none():
    facts = {"features": 5, "cardinalities": [], "classes": 2, "domains": 1}
    with pytest.raises(ArgumentError, match=r"^gate\.channels: is missing, and does not follow from the data here"):
        build_model({"gate": {"kind": "conv"}, "experts": {"kind": "linear", "count": 2}}, facts)


def test_a_sparse_gate_that_chooses_nothing_on_zeros_is_counted_with_the_experts_that_it_runs():
    part = {
        "gate": {"kind": "linear", "init": "keras"},
        "router": {"kind": "top_k", "k": 2, "normalisation": "relu"},
        "experts": {"kind": "linear", "count": 9},
    }
    torch.manual_seed(0)
    model = build_model(part, FACTS)
    with torch.no_grad():
        assert not model(torch.zeros(1, *row_shape(FACTS))).any()
        x = torch.rand(16 * FACTS["domains"], *row_shape(FACTS), generator=torch.Generator().manual_seed(0))
        chosen = (model.router(model.gate(x)).weights != 0).sum(1).double().mean().item()
    assert chosen > 1
    assert multiply_adds(model, FACTS) == pytest.approx(64 * 9 + chosen * 64 * 20, abs=1)
