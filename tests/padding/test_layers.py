"""Padding in layers that hold mixtures, and in mixtures inside mixtures."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.layers import AttentiveMixture, SoftMoE, SparseFFN

ROUTERS = {
    "top_k": lambda: mb.routers.TopK(2, bias_rate=0.5, experts=4),
    "switch": lambda: mb.routers.Switch(capacity=1.0),
    "choice": lambda: mb.routers.ExpertChoice(1.0),
    "noisy": lambda: mb.routers.NoisyTopK(2, learned_noise=False),
}


def body(features=4, outputs=4):
    return nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, outputs))


def inner(router=None, outputs=4):
    return mb.Mixture(mb.gates.Linear(4, 3), [body(outputs=outputs) for _ in range(3)], router or mb.routers.TopK(1))


@pytest.mark.parametrize("way", ["argument", "block"])
@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("router", ROUTERS)
def test_a_sparse_layer(as_without, tokens, mask, router, shared, way):
    torch.manual_seed(0)
    layer = SparseFFN(4, 6, 4, 2, activation="swiglu", shared=shared, router=ROUTERS[router]()).double()
    as_without(layer, tokens, mask, way)
    as_without(layer, tokens, torch.tensor([True, False, True]), way)
    as_without(layer, tokens[0], mask[1], way)


@pytest.mark.parametrize("execution", ["loop", "sorted", "gather", "dense"])
def test_a_sparse_layer_by_every_execution(as_without, tokens, mask, execution):
    torch.manual_seed(0)
    as_without(SparseFFN(4, 6, 4, 2, shared=1, execution=execution).double(), tokens, mask)


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("way", ["argument", "block"])
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1), mb.routers.Switch(capacity=1.0)])
def test_a_mixture_in_a_mixture(as_without, tokens, mask, router, way, outputs):
    """Its rows are tokens, through a module that knows nothing of padding too."""
    torch.manual_seed(0)
    experts = [inner(), nn.Sequential(nn.Linear(4, 4), inner(mb.routers.ExpertChoice(1.0))), body()]
    moe = mb.Mixture(mb.gates.Linear(4, 3), experts, router).double()
    as_without(moe, tokens, mask, way, outputs)


@pytest.mark.parametrize("some", ["some", "none", "sequences"])
@pytest.mark.parametrize("router", [None, mb.routers.TopK(1)])
def test_an_attentive_mixture(as_without, tokens, mask, router, some):
    torch.manual_seed(0)
    bodies, heads = [body(outputs=6) for _ in range(3)], [nn.Linear(6, 3) for _ in range(3)]
    moe = AttentiveMixture(nn.Linear(4, 5), bodies, heads, 5, 6, router=router).double()
    masks = {"some": mask, "none": torch.zeros_like(mask), "sequences": torch.tensor([False, True, True])}
    as_without(moe, tokens, masks[some], outputs=True)
    as_without(moe, tokens, masks[some], "block")


@pytest.mark.parametrize("way", ["argument", "block"])
def test_images_are_rows(as_without, way):
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 3)) for _ in range(3)]
    moe = mb.Mixture(Gate(), experts, mb.routers.TopK(2)).double()
    x = torch.randn(6, 2, 4, 4, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True])
    y, expected = mb.call(moe, torch.where(mask.view(-1, 1, 1, 1), x, torch.nan), {"mask": mask})[0], moe(x[mask])
    torch.testing.assert_close(y[mask], expected)
    assert not y[~mask].any()


@pytest.mark.parametrize("way", ["argument", "block"])
@pytest.mark.parametrize("normalise", [True, False])
def test_soft_moe_mixes_each_sequence_as_if_it_were_alone(tokens, mask, way, normalise):
    torch.manual_seed(0)
    layer = SoftMoE(4, [body() for _ in range(3)], slots=2, normalise=normalise).double()
    x = torch.where(mask.unsqueeze(-1), tokens, torch.nan).requires_grad_()
    with mb.record(layer, outputs=True) as log:
        if way == "argument":
            y = layer(x, mask=mask)
        else:
            with mb.context(mask=mask):
                y = layer(x)
    alone = [tokens[place : place + 1, real].requires_grad_() for place, real in enumerate(mask)]
    with mb.record(layer, outputs=True) as expected_log:
        expected = torch.cat([layer(one).squeeze(0) for one in alone])
    (routing,) = log[""]
    for name in ("scores", "probs", "weights", "outputs"):
        torch.testing.assert_close(
            getattr(routing, name), torch.cat([getattr(one, name) for one in expected_log[""]]), msg=name
        )
    assert routing.rows.tolist() == mask.flatten().nonzero().squeeze(1).tolist()
    torch.testing.assert_close(y[mask], expected)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    parameters = list(layer.parameters())
    loss, other = (mb.losses.importance(routing), y), (mb.losses.importance(routing_of(expected_log)), expected)
    found = torch.autograd.grad(loss[0] + loss[1].square().sum(), [x, *parameters])
    others = torch.autograd.grad(other[0] + other[1].square().sum(), [*alone, *parameters])
    torch.testing.assert_close(found[0][mask], torch.cat([gradient.squeeze(0) for gradient in others[:3]]))
    assert not found[0][~mask].any()
    torch.testing.assert_close(found[1:], others[3:])


def routing_of(log):
    """The routing of sequences that were recorded one by one."""
    whole = torch.cat([routing.scores for routing in log[""]])
    return mb.routers.Soft()(whole)


@pytest.mark.parametrize("whole", [False, True])
def test_in_soft_moe_the_slots_of_a_sequence_of_padding_reach_no_mixture(tokens, whole):
    torch.manual_seed(0)
    layer = SoftMoE(4, [inner(), body()], slots=2).double()
    of_sequences = torch.tensor([True, False, True])
    mask = of_sequences if whole else of_sequences.unsqueeze(1).expand(3, 5)
    x = torch.where(of_sequences.view(3, 1, 1), tokens, torch.nan)
    y, log = mb.call(layer, x, {"mask": mask})
    expected, expected_log = mb.call(layer, tokens[of_sequences])
    torch.testing.assert_close(y[of_sequences], expected)
    assert not y[1].any()
    found, alone = log["experts.0"][0], expected_log["experts.0"][0]
    torch.testing.assert_close(found.weights, alone.weights)
    assert found.rows.tolist() == [0, 1, 4, 5]


def test_a_network_of_layers_reads_one_mask(tokens, mask):
    torch.manual_seed(0)
    network = nn.Sequential(SparseFFN(4, 6, 4, 2), nn.LayerNorm(4), inner(), SparseFFN(4, 6, 4, 1, shared=1)).double()
    with mb.context(mask=mask), mb.record(network) as log:
        y = network(torch.where(mask.unsqueeze(-1), tokens, torch.nan))
    # LayerNorm makes of the zeros of padding its bias, which the next mixture does not read.
    torch.testing.assert_close(y[mask], network(tokens[mask]))
    assert not y[~mask].any()
    assert [len(routings[0].weights) for routings in log.values()] == [10, 10, 10]
