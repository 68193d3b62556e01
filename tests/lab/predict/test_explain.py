"""Explanations of models: routes are those of the record, and what an expert says is what it says alone."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.predict import ExplainedRows, Subject, explain
from moebius.lab.predict.passes import MOST_PASSES

ROWS = 9


def linears(count, features=4, outputs=3):
    torch.manual_seed(1)
    return [nn.Linear(features, outputs) for _ in range(count)]


@pytest.fixture
def x():
    return torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def label():
    return torch.arange(ROWS) % 3


def top_k(k, combine=None):
    torch.manual_seed(0)
    return mb.Mixture(nn.Linear(4, 4), linears(4), mb.routers.TopK(k), combine).eval()


@pytest.mark.parametrize("k", [1, 2])
def test_the_route_is_that_of_the_record(x, k):
    moe = top_k(k)
    with mb.record(moe) as log:
        output = moe(x)
    routing = log[""][-1]
    for row, why in enumerate(explain(moe, x)):
        assert why.row == str(row)
        assert why.answer["class"]["prediction"] == str(output[row].argmax().item())
        assert why.answer["class"]["probability"] == output[row].softmax(-1).max().item()
        (gate,) = why.gates
        weights = routing.weights[row].tolist()
        assert {expert.expert: expert.weight for expert in gate.experts} == dict(enumerate(weights))
        assert [expert.expert for expert in why.route] == np.argsort(weights)[::-1][:k].tolist()
        # The runners-up are the experts with the next scores, and margins count from the last that ran.
        probs = routing.probs[row].tolist()
        order = np.argsort(probs)[::-1].tolist()
        assert [each.expert for each in gate.runners_up] == order[k:][:3]
        assert gate.runners_up[0].margin == pytest.approx(probs[order[k - 1]] - probs[order[k]])


@pytest.mark.parametrize("combine", [None, mb.LogMixture()])
def test_every_expert_says_what_it_says_alone(x, label, combine):
    moe = top_k(2, combine)
    for row, why in enumerate(explain(moe, x, label)):
        for view in why.gates[0].experts:
            logits = moe.experts[view.expert](x[row : row + 1])
            assert view.answer["class"]["prediction"] == str(logits.argmax().item())
            assert view.answer["class"]["probability"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-6)
            assert view.loss == pytest.approx(F.cross_entropy(logits, label[row : row + 1]).item(), abs=1e-5)


def test_regret_is_the_loss_minus_that_of_the_best_expert(x, label):
    moe = top_k(1)
    losses = F.cross_entropy(moe(x), label, reduction="none")
    alone = torch.stack([F.cross_entropy(expert(x), label, reduction="none") for expert in moe.experts], 1)
    for row, why in enumerate(explain(moe, x, label)):
        assert why.loss == pytest.approx(losses[row].item(), abs=1e-6)
        assert why.regret == pytest.approx((losses[row] - alone[row].min()).item(), abs=1e-5)
        assert why.gates[0].best == f"experts.{alone[row].argmin().item()}"


def test_a_perfect_gate_has_no_regret():
    """Each expert knows one class, and the gate sends a row to the one that knows its class."""
    experts = [nn.Linear(3, 3) for _ in range(3)]
    for number, expert in enumerate(experts):
        nn.init.zeros_(expert.weight)
        expert.bias.data = 10.0 * F.one_hot(torch.tensor(number), 3)
    gate = nn.Linear(3, 3, bias=False)
    gate.weight.data = 1000 * torch.eye(3)
    moe = mb.Mixture(gate, experts, mb.routers.TopK(1))
    for why in explain(moe, torch.eye(3), [0, 1, 2]):
        assert why.regret == pytest.approx(0, abs=1e-6)
        assert "regret   0: no expert alone" in why.text()


def test_an_expert_that_costs_more_than_what_ran_is_no_alternative(x):
    wide = nn.Sequential(nn.Linear(4, 500), nn.ReLU(), nn.Linear(500, 3))
    wide[2].weight.data.zero_()
    wide[2].bias.data = torch.tensor([50.0, 0, 0])
    gate = nn.Linear(4, 3)
    gate.weight.data.zero_()
    gate.bias.data = torch.tensor([5.0, 0, 0])
    moe = mb.Mixture(gate, [*linears(2), wide], mb.routers.TopK(1))
    for why in explain(moe, x, [0] * ROWS):
        least = min(view.loss for view in why.gates[0].experts if view.path != "experts.2")
        assert why.regret == pytest.approx(why.loss - least, abs=1e-6)
        assert why.gates[0].best in ("experts.0", "experts.1")
        work = {view.path: view.work for view in why.gates[0].experts}
        assert work["experts.2"] > work["experts.0"] == work["experts.1"]


def test_a_tree_has_a_path(x, label):
    torch.manual_seed(0)
    inner = mb.Mixture(nn.Linear(4, 3), linears(3), mb.routers.Soft())
    moe = mb.Mixture(nn.Linear(4, 2), [inner, nn.Linear(4, 3)], mb.routers.TopK(1), mb.LogMixture()).eval()
    with mb.record(moe) as log:
        moe(x)
    reached = set(log["experts.0"][-1].rows.tolist())
    assert 0 < len(reached) < ROWS
    for row, why in enumerate(explain(moe, x, label)):
        outer, nested = why.gates
        assert (nested.gate, nested.inside) == ("experts.0.gate", "experts.0")
        assert nested.reached == (row in reached) == (outer.route[0].path == "experts.0")
        assert (nested.gate + ": not reached" in why.text()) == (row not in reached)
        # What a leaf says does not depend on whether the row came by.
        for view in nested.experts:
            logits = inner.experts[view.expert](x[row : row + 1])
            assert view.loss == pytest.approx(F.cross_entropy(logits, label[row : row + 1]).item(), abs=1e-5)
        leaves = [*nested.experts, outer.experts[[view.path for view in outer.experts].index("experts.1")]]
        # A leaf of the tree costs the gate above it, too: more than the expert beside the tree.
        limit = leaves[0].work if row in reached else leaves[3].work
        affordable = [view.loss for view in leaves if view.work <= limit]
        assert len(affordable) == (4 if row in reached else 1)
        assert why.regret == pytest.approx(why.loss - min(affordable), abs=1e-5)
        assert outer.best in ("experts.0.experts.0", "experts.0.experts.1", "experts.0.experts.2", "experts.1")


def test_experts_that_give_features_answer_by_the_rest_of_the_network(x):
    torch.manual_seed(0)
    layer = mb.layers.SparseFFN(8, 16, experts=3, k=1)
    network = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3)).eval()
    (gate,) = explain(network, x)[0].gates
    assert gate.gate == "1.mixture.gate"
    by_hand = network[2](layer.mixture.experts[2](network[0](x[:1])))
    view = next(view for view in gate.experts if view.expert == 2)
    assert view.answer["class"]["probability"] == pytest.approx(by_hand.softmax(-1).max().item(), abs=1e-5)


def test_tokens_have_means():
    torch.manual_seed(0)
    network = mb.Mixture(nn.Linear(4, 3), linears(3), mb.routers.TopK(1)).eval()
    tokens = torch.randn(2, 5, 4)
    with mb.record(network) as log:
        output = network(tokens)
    weights = log[""][-1].weights.view(2, 5, 3).mean(1)
    label = torch.tensor([[0, 1, 2, 0, -100], [1, 1, 1, 1, 1]])
    for row, why in enumerate(explain(network, tokens, label, task="tokens", classes=["a", "b", "c"])):
        assert why.gates[0].positions == 5
        assert {view.expert: view.weight for view in why.gates[0].experts} == pytest.approx(
            dict(enumerate(weights[row].tolist()))
        )
        shares = pd.Series([["a", "b", "c"][each] for each in output[row].argmax(-1)]).value_counts(normalize=True)
        assert why.answer["class"]["shares"] == pytest.approx(shares.to_dict())
        known = label[row] >= 0
        right = (output[row].argmax(-1) == label[row])[known].float().mean().item()
        assert why.score == pytest.approx(right)
        assert "means of 5 positions" in why.text()


def test_each_task_has_a_gate_and_a_missing_target_no_loss(x):
    torch.manual_seed(0)
    gates = {"kind": nn.Linear(4, 3), "price": nn.Linear(4, 3)}
    towers = {"kind": nn.Linear(6, 2), "price": nn.Linear(6, 1)}
    network = mb.layers.MultiGateMixture(gates, linears(3, outputs=6), towers)
    task = {"kind": "multi_task", "tasks": {"kind": "classification", "price": "regression"}}
    label = {"kind": torch.tensor([0, -100, -100]), "price": torch.tensor([1.0, 2.0, torch.nan])}
    first, second, third = explain(network, x[:3], label, task=task)
    assert [(gate.gate, gate.task) for gate in first.gates] == [("gates.kind", "kind"), ("gates.price", "price")]
    assert first.answer.keys() == {"kind", "price"}
    assert second.label == {"kind": None, "price": 2.0}
    assert second.loss == pytest.approx((second.answer["price"]["prediction"] - 2) ** 2, abs=1e-5)
    assert (third.label, third.loss, third.regret) == (None, None, None)
    # A gate changes the answer of its own task alone.
    for view in first.gates[0].experts:
        assert view.answer["price"]["prediction"] == pytest.approx(first.answer["price"]["prediction"], abs=1e-6)


@pytest.mark.parametrize(
    ("task", "outputs", "label"),
    [
        ("regression", 1, [0.5] * ROWS),
        ("regression", 2, torch.ones(ROWS, 2)),
        ("gaussian", 4, torch.ones(ROWS, 2)),
        ("multi_label", 3, torch.ones(ROWS, 3)),
        (nn.L1Loss(reduction="none"), 2, torch.zeros(ROWS, 2)),
    ],
)
def test_other_tasks(x, task, outputs, label):
    combine = mb.combine.Components() if task == "gaussian" else None
    torch.manual_seed(0)
    moe = mb.Mixture(nn.Linear(4, 3), linears(3, outputs=outputs), mb.routers.Soft(), combine)
    for why in explain(moe, x, label, task=task):
        json.dumps(why.to_dict(), allow_nan=False)
        assert why.loss is not None
        assert why.regret == pytest.approx(why.loss - min(view.loss for view in why.gates[0].experts), abs=1e-5)
        assert why.label.keys() == why.answer.keys()
        if task == "gaussian":
            # Of one component the interval is that of a normal distribution: 2 · 1.645 σ.
            said = why.gates[0].experts[0].answer["y0"]
            assert said["upper"] - said["lower"] == pytest.approx(2 * 1.6449 * said["scale"], rel=1e-3)


def test_a_fitted_model_knows_its_task_and_classes(x, label):
    fitted = mb.fit(top_k(1), (x, label), epochs=1, validation=0, progress=False)
    (why,) = explain(fitted, x[:1], "2")
    assert why.label == {"class": "2"}
    assert explain(fitted.model, x[:1], 2)[0].loss == why.loss


def test_what_cannot_be_said_is_said(x):
    many = mb.Mixture(nn.Linear(4, MOST_PASSES + 1), linears(MOST_PASSES + 1), mb.routers.TopK(1))
    (why,) = explain(many, x[:1])
    assert "takes 129 passes and was not computed" in why.notes[0]
    assert "says" not in why.text().splitlines()[5]
    assert explain(many, x[:1], alternatives=True)[0].gates[0].experts[7].answer
    slots = mb.layers.SoftMoE(4, linears(2, outputs=4))
    (why,) = explain(slots, torch.randn(1, 5, 4), task="tokens")
    assert "none of them answers alone" in " ".join(why.text().split())
    assert "no mixture" in explain(nn.Linear(4, 3), x[:1])[0].text()
    one = mb.Mixture(nn.Linear(4, 1), linears(1))
    assert "one expert" in explain(one, x[:1])[0].text()


def test_the_model_is_left_as_it_was(x, label):
    moe = top_k(2).train()
    router, execution = moe.router, moe.execution
    explain(moe, x, label)
    assert moe.training
    assert (moe.router, moe.execution) == (router, execution)


def test_an_answer_does_not_depend_on_what_else_is_computed(x, label):
    moe = top_k(2)
    bare = explain(moe, x, alternatives=False)
    full = explain(moe, x, label)
    assert [why.answer for why in bare] == [why.answer for why in full]
    assert bare[0].gates[0].experts[0].answer is None
    assert "not known, so there is no regret" in bare[0].text()


def test_texts_fit_a_terminal_and_html_is_escaped(x, label):
    names = ["<b>" + "a very long name of a class " * 3, "b", "c"]
    whys = explain(top_k(2), x, label, classes=names)
    assert max(len(line) for why in whys for line in why.text().splitlines()[2:]) <= 80
    assert repr(whys[0]) == whys[0].text()
    assert "<b>" not in whys[0]._repr_html_()
    assert whys[0]._repr_html_().count("<table>") == 3


def test_labels_that_do_not_fit(x):
    with pytest.raises(ArgumentError, match="needs one for each of 9 rows"):
        explain(top_k(1), x, [0, 1])
    with pytest.raises(ArgumentError, match="must be names or positions of label"):
        explain(top_k(1), x, "cat", classes=["dog", "3", "ship"])
    with pytest.raises(ArgumentError, match=r"needs labels 0 … 2"):
        explain(top_k(1), x, [7] * ROWS)
    with pytest.raises(ArgumentError, match="needs a run's folder"):
        explain(3, x)


def test_rows_are_computed_together(x):
    """As many passes for many rows as for one."""
    moe, calls = top_k(1), []
    moe.gate.register_forward_hook(lambda *_: calls.append(1))
    rows = ExplainedRows(Subject.of(moe), *Subject.of(moe).read(x))
    assert len(rows) == ROWS
    assert [why.row for why in rows] == [str(row) for row in range(ROWS)]
    assert len(calls) == 1 + 4


def test_frozen_experts_are_computed_once_for_all_routes(x, label):
    experts = linears(4)
    frozen = [mb.experts.Adapter(expert, frozen=True) for expert in experts]
    torch.manual_seed(0)
    gate, calls = nn.Linear(4, 4), []
    whys = explain(mb.Mixture(gate, experts, mb.routers.TopK(1)), x, label)
    for expert in experts:
        expert.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    again = explain(mb.Mixture(gate, frozen, mb.routers.TopK(1)), x, label)
    # Once as routed, once by each expert; the work of a route is counted on a single row.
    assert sum(calls) == ROWS + 4 * ROWS + 4
    for why, other in zip(whys, again, strict=True):
        assert [each.expert for each in why.route] == [each.expert for each in other.route]
        told = [{each.expert: each.loss for each in view.gates[0].experts} for view in (why, other)]
        assert told[0] == pytest.approx(told[1])
