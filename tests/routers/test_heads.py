import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.routing import Router, Routing, Selection
from moebius.kit.errors import ArgumentError
from moebius.lab.model.build import build_model
from moebius.routers.argmax import Argmax
from moebius.routers.heads import Heads
from moebius.routers.per_class import PerClass
from moebius.routers.soft import Soft


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_worked():
    # softmax(ln 3, 0) = (3/4, 1/4) and softmax(0, 0) = (1/2, 1/2).
    routing = Heads(Soft(), 2)(torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log())
    torch.testing.assert_close(routing.weights, torch.tensor([[1.25, 0.75]]))
    torch.testing.assert_close(routing.probs, torch.tensor([[0.625, 0.375]]))
    torch.testing.assert_close(routing.scores, torch.tensor([[3.0, 1.0]]).log() / 2)
    torch.testing.assert_close(routing.head_weights, torch.tensor([[[[0.75], [0.25]], [[0.5], [0.5]]]]))
    assert routing.selection is None


def test_worked_where_the_router_selects():
    routing = Heads(Argmax(), 2)(torch.tensor([[5.0, 0.0, 0.0, 0.0, 0.0, 5.0], [0.0, 5.0, 0.0, 0.0, 5.0, 0.0]]))
    assert routing.weights.tolist() == [[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]
    selection = routing.selection
    assert selection.row_A.tolist() == [0, 0, 0, 1, 1, 1]
    assert selection.expert_A.tolist() == [0, 1, 2, 0, 1, 2]
    assert selection.kept_A.tolist() == [True, False, True, False, True, False]
    assert selection.weight_A.tolist() == [1.0, 0.0, 1.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("router", [Soft(0.5, "sigmoid"), Argmax(), PerClass(3)])
def test_one_head_is_the_router_itself(router):
    scores = random(7, router.gate_outputs(4))
    single, expected = Heads(router, 1)(scores), router(scores)
    for name in ("scores", "probs", "weights", "log_weights"):
        assert torch.equal(getattr(single, name), getattr(expected, name))
    assert (single.head_weights is None) == (expected.head_weights is None)


@pytest.mark.parametrize("router", [Soft(), Soft(normalisation="elu"), Argmax()])
def test_two_heads_are_the_sum_of_two_mixtures_over_the_same_experts(router):
    gates, experts = [nn.Linear(5, 3).double() for _ in range(2)], [nn.Linear(5, 2).double() for _ in range(3)]
    both = nn.Linear(5, 6).double()
    with torch.no_grad():
        both.weight.copy_(torch.cat([gate.weight for gate in gates]))
        both.bias.copy_(torch.cat([gate.bias for gate in gates]))
    x = random(8, 5)
    apart = sum(mb.Mixture(gate, experts, router)(x) for gate in gates)
    together = mb.Mixture(both, experts, Heads(router, 2))(x)
    torch.testing.assert_close(together, apart)
    parameters = [parameter for expert in experts for parameter in expert.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(together.square().sum(), parameters), torch.autograd.grad(apart.square().sum(), parameters)
    )


def test_heads_of_weights_per_class_are_heads_and_classes():
    router, scores = PerClass(5), random(6, 2 * 5 * 3)
    routing = Heads(router, 2)(scores)
    assert routing.head_weights.shape == (6, 2, 3, 5)
    for head, block in enumerate(scores.chunk(2, -1)):
        torch.testing.assert_close(routing.head_weights[:, head], router(block).head_weights[:, 0])


def test_heads_of_heads_are_as_many_heads():
    scores = random(6, 12)
    torch.testing.assert_close(Heads(Heads(Soft(), 2), 2)(scores).head_weights, Heads(Soft(), 4)(scores).head_weights)


class Greedy(Router):
    """Each expert takes the row that scores it highest: rows compete, and some get none."""

    rows_sum_to = None
    rows_independent = False

    def forward(self, scores):
        experts = scores.shape[1]
        selection = Selection(
            scores.argmax(0), torch.arange(experts), scores.new_ones(experts), torch.ones(experts, dtype=torch.bool)
        )
        aux = {"assigned": torch.ones(experts), "dropped": torch.tensor(3.0), "load": scores.softmax(-1)}
        return Routing.from_selection(scores, scores.softmax(-1), selection, aux)


def test_rows_compete_within_their_head_only():
    scores = torch.tensor([[1.0, 9.0, 0.0, 1.0], [2.0, 8.0, 5.0, 0.0]])
    routing = Heads(Greedy(), 2)(scores)
    assert routing.head_weights[:, 0, :, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert routing.head_weights[:, 1, :, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert not Heads(Greedy(), 2).rows_independent


def test_counts_add_up_and_chances_are_those_that_any_head_chooses():
    routing = Heads(Greedy(), 2)(torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log())
    assert routing.aux["assigned"].tolist() == [2.0, 2.0]
    assert routing.aux["dropped"] == 6
    # 1 − (1 − 3/4)(1 − 1/2) and 1 − (1 − 1/4)(1 − 1/2)
    torch.testing.assert_close(routing.aux["load"], torch.tensor([[0.875, 0.625]]))


class ByKey(Router):
    """Row r goes to expert key_r mod E, whatever the gate says."""

    needs_keys = True

    def forward(self, scores, keys):
        weights = nn.functional.one_hot(keys % scores.shape[1], scores.shape[1]).to(scores.dtype)
        return Routing(scores, scores.softmax(-1), weights, weights.log())


def test_keys_reach_the_router():
    moe = mb.Mixture(nn.Linear(4, 4), [nn.Linear(4, 3), nn.Linear(4, 3)], Heads(ByKey(), 2))
    with mb.record(moe) as log:
        moe(torch.zeros(3, 4), {"key": torch.tensor([0, 3, 4])})
    assert log[""][0].weights.tolist() == [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]


def test_promises_follow_from_the_routers():
    soft, relu, argmax = Heads(Soft(), 3), Heads(Soft(normalisation="relu"), 3), Heads(Argmax(), 3)
    assert (soft.rows_sum_to, relu.rows_sum_to, argmax.rows_sum_to) == (3, None, 3)
    assert (soft.trains_gate, argmax.trains_gate) == (True, False)
    assert [argmax.max_active(experts) for experts in (2, 3, 9)] == [2, 3, 3]
    assert soft.gate_outputs(4) == 12


def test_a_gate_that_is_no_distribution_stays_none():
    assert not Heads(Soft(normalisation="elu"), 2)(random(3, 4)).distribution
    assert Heads(Soft(), 2)(random(3, 4)).distribution


def test_in_a_recipe_the_gate_gets_as_many_outputs_as_the_heads_need():
    spec = {
        "gate": {"kind": "linear"},
        "experts": {"kind": "linear", "count": 3},
        "router": {"kind": "heads", "heads": 2, "router": {"kind": "per_class"}},
        "combine": {"kind": "head_maximum"},
    }
    moe = build_model(spec, {"features": 64, "channels": 1, "size": 8, "classes": 5, "domains": 1})
    assert moe.gate.linear.out_features == 2 * 5 * 3
    assert moe(torch.zeros(4, 1, 8, 8)).shape == (4, 5)


@pytest.mark.parametrize("heads", [0, -1])
def test_no_head_is_refused(heads):
    with pytest.raises(ArgumentError, match="heads: needs a whole number of at least 1"):
        Heads(Soft(), heads)
