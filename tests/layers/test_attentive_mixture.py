import math

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers.attentive_mixture import AttentiveMixture


def random_rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_mixture(experts=3, **options):
    torch.manual_seed(0)
    bodies = [nn.Sequential(nn.Linear(4, 6), nn.Tanh()) for _ in range(experts)]
    heads = [nn.Linear(6, 2) for _ in range(experts)]
    return AttentiveMixture(nn.Linear(4, 5), bodies, heads, 5, 6, dim=8, **options).double()


def make_scaling(factor):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, factor)
    return layer


def test_worked():
    # x = 1: state 2, query 2·3 = 6; features 1 and 0, keys of ½ a feature: scores 3 and 0 with d = 1.
    moe = AttentiveMixture(
        make_scaling(2.0), [make_scaling(1.0), make_scaling(0.0)], [make_scaling(4.0), nn.Linear(1, 1)], 1, 1, dim=1
    )
    with torch.no_grad():
        moe.query.weight.fill_(3.0)
        moe.key.weight.fill_(0.5)
        moe.heads[1].bias.fill_(8.0)
    with mb.record(moe) as log:
        y = moe(torch.ones(1, 1))
    first_weight = math.exp(3) / (math.exp(3) + 1)
    torch.testing.assert_close(log[""][0].scores, torch.tensor([[3.0, 0.0]]))
    torch.testing.assert_close(y, torch.tensor([[4 * first_weight + 8 * (1 - first_weight)]]))


def test_it_is_scaled_attention_over_the_experts():
    moe, x = make_mixture(), random_rows(7, 4)
    features = torch.stack([body(x) for body in moe.bodies], 1)
    values = torch.stack([head(features[:, number]) for number, head in enumerate(moe.heads)], 1)
    query, key = moe.query(moe.gate(x)).unsqueeze(1), moe.key(features)
    by_hand = nn.functional.scaled_dot_product_attention(query, key, values).squeeze(1)
    torch.testing.assert_close(moe(x), by_hand)


def test_a_gate_that_knows_the_keys_is_an_ordinary_mixture():
    moe, x = make_mixture(), random_rows(7, 4)

    class AttentionGate(nn.Module):
        def forward(self, x):
            features = torch.stack([body(x) for body in moe.bodies], 1)
            return torch.einsum("td,ted->te", moe.query(moe.gate(x)), moe.key(features)) / 8**0.5

    experts = [nn.Sequential(body, head) for body, head in zip(moe.bodies, moe.heads, strict=True)]
    for router, combine in [(None, None), (mb.routers.Argmax(), mb.LogMixture())]:
        attentive = make_mixture(router=router, combine=combine)
        torch.testing.assert_close(attentive(x), mb.Mixture(AttentionGate(), experts, router, combine)(x))


def test_experts_with_equal_features_weigh_the_same():
    moe = make_mixture()
    for body in moe.bodies:
        body.load_state_dict(moe.bodies[0].state_dict())
    with mb.record(moe) as log:
        moe(random_rows(7, 4))
    torch.testing.assert_close(log[""][0].weights, torch.full((7, 3), 1 / 3, dtype=torch.float64))


def test_permuting_experts_permutes_weights_and_nothing_else():
    moe, x, order = make_mixture(), random_rows(7, 4), [2, 0, 1]
    bodies, heads = [moe.bodies[number] for number in order], [moe.heads[number] for number in order]
    permuted = AttentiveMixture(moe.gate, bodies, heads, 5, 6, 8)
    permuted.query, permuted.key = moe.query, moe.key
    (y, log), (permuted_y, permuted_log) = mb.call(moe, x), mb.call(permuted, x)
    torch.testing.assert_close(permuted_log[""][0].weights, log[""][0].weights[:, order])
    torch.testing.assert_close(permuted_y, y)


def test_the_loss_trains_every_part():
    moe = make_mixture()
    moe(random_rows(7, 4)).square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in moe.parameters())


def test_weights_alone_train_gate_and_bodies_but_not_heads():
    moe = make_mixture()
    with mb.record(moe) as log:
        moe(random_rows(7, 4))
    log[""][0].probs[:, 0].sum().backward()
    assert all(parameter.grad.count_nonzero() for part in (moe.gate, moe.bodies) for parameter in part.parameters())
    assert all(parameter.grad is None for parameter in moe.heads.parameters())


def test_tokens_are_rows_where_the_gate_sees_them_one_by_one():
    moe, x = make_mixture(), random_rows(2, 7, 4)
    y, log = mb.call(moe, x)
    assert log[""][0].weights.shape == (14, 3)
    torch.testing.assert_close(y, moe(x.flatten(0, 1)).view(2, 7, 2))


def test_inside_a_branch_its_rows_are_those_of_the_outermost_batch():
    inner, x, domain = make_mixture(), random_rows(5, 4), torch.tensor([0, 1, 1, 0, 1])
    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 2).double(), inner], mb.routers.Argmax())
    y, log = mb.call(moe, x, {"domain": domain})
    assert log["experts.1"][0].rows.tolist() == [1, 2, 4]
    torch.testing.assert_close(y[domain == 1], inner(x[domain == 1]))


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.Argmax()])
def test_recorded_outputs_are_those_of_all_experts(router):
    moe, x = make_mixture(router=router), random_rows(7, 4)
    with mb.record(moe, outputs=True) as log:
        y = moe(x)
    (routing,) = log[""]
    by_hand = torch.stack([head(body(x)) for body, head in zip(moe.bodies, moe.heads, strict=True)], 1)
    torch.testing.assert_close(routing.outputs, by_hand)
    torch.testing.assert_close(torch.einsum("te,teo->to", routing.weights, routing.outputs), y)


def test_no_rows():
    assert make_mixture()(random_rows(0, 4)).shape == (0, 2)


def test_what_it_cannot_be_made_of():
    body, head = nn.Linear(4, 6), nn.Linear(6, 2)
    with pytest.raises(ArgumentError, match="bodies: needs at least one expert"):
        AttentiveMixture(nn.Linear(4, 5), [], [], 5, 6)
    with pytest.raises(ArgumentError, match="heads: needs one head for each of 2 bodies, got 1") as caught:
        AttentiveMixture(nn.Linear(4, 5), [body, body], [head], 5, 6)
    assert caught.value.fix == "heads=[nn.Linear(6, outputs) for _ in range(2)]"
    with pytest.raises(ArgumentError, match="router: needs a router that takes one score per expert"):
        AttentiveMixture(nn.Linear(4, 5), [body], [head], 5, 6, router=mb.routers.PerClass(2))
    with pytest.raises(ArgumentError, match=r"gate: must give 9 features for each row .*, got \(7, 5\)"):
        AttentiveMixture(nn.Linear(4, 5), [body], [head], 9, 6)(torch.zeros(7, 4))
    with pytest.raises(ArgumentError, match=r"bodies: must give 9 features for each of 7 rows, got \(7, 6\)"):
        AttentiveMixture(nn.Linear(4, 5), [body], [head], 5, 9)(torch.zeros(7, 4))


def test_wrong_outputs_are_named_by_where_they_came_from():
    class PairModule(nn.Module):
        def forward(self, x):
            return x, x

    widths = {"gate_features": 4, "expert_features": 4}
    with pytest.raises(ArgumentError, match=r"^bodies\.1: the expert, a PairModule, must give one tensor"):
        AttentiveMixture(nn.Identity(), [nn.Identity(), PairModule()], [nn.Identity()] * 2, **widths)(torch.zeros(3, 4))
    heads = [nn.Linear(4, 2), nn.Linear(4, 3)]
    with pytest.raises(ArgumentError, match=r"^heads\.1: gives rows of shape \(3,\) where heads\.0 gives"):
        AttentiveMixture(nn.Identity(), [nn.Identity()] * 2, heads, **widths)(torch.zeros(3, 4))
