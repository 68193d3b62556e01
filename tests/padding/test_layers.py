"""Padding in layers that contain mixtures, and in mixtures inside mixtures."""

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


def make_body(features=4, outputs=4):
    return nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, outputs))


def make_inner(router=None, outputs=4):
    return mb.Mixture(
        mb.gates.Linear(4, 3), [make_body(outputs=outputs) for _ in range(3)], router or mb.routers.TopK(1)
    )


@pytest.mark.parametrize("mask_passing", ["argument", "block"])
@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("router", ROUTERS)
def test_a_sparse_layer(check_padding, tokens, mask, router, shared, mask_passing):
    torch.manual_seed(0)
    layer = SparseFFN(4, 6, 4, 2, activation="swiglu", shared=shared, router=ROUTERS[router]()).double()
    check_padding(layer, tokens, mask, mask_passing)
    check_padding(layer, tokens, torch.tensor([True, False, True]), mask_passing)
    check_padding(layer, tokens[0], mask[1], mask_passing)


@pytest.mark.parametrize("execution", ["loop", "sorted", "gather", "dense"])
def test_a_sparse_layer_by_every_execution(check_padding, tokens, mask, execution):
    torch.manual_seed(0)
    check_padding(SparseFFN(4, 6, 4, 2, shared=1, execution=execution).double(), tokens, mask)


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("mask_passing", ["argument", "block"])
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1), mb.routers.Switch(capacity=1.0)])
def test_a_mixture_in_a_mixture(check_padding, tokens, mask, router, mask_passing, outputs):
    """Its rows are tokens, also where a module in between passes no mask on."""
    torch.manual_seed(0)
    experts = [make_inner(), nn.Sequential(nn.Linear(4, 4), make_inner(mb.routers.ExpertChoice(1.0))), make_body()]
    moe = mb.Mixture(mb.gates.Linear(4, 3), experts, router).double()
    check_padding(moe, tokens, mask, mask_passing, outputs)


@pytest.mark.parametrize("real_rows", ["some", "none", "sequences"])
@pytest.mark.parametrize("router", [None, mb.routers.TopK(1)])
def test_an_attentive_mixture(check_padding, tokens, mask, router, real_rows):
    torch.manual_seed(0)
    bodies, heads = [make_body(outputs=6) for _ in range(3)], [nn.Linear(6, 3) for _ in range(3)]
    moe = AttentiveMixture(nn.Linear(4, 5), bodies, heads, 5, 6, router=router).double()
    masks = {"some": mask, "none": torch.zeros_like(mask), "sequences": torch.tensor([False, True, True])}
    check_padding(moe, tokens, masks[real_rows], outputs=True)
    check_padding(moe, tokens, masks[real_rows], "block")


@pytest.mark.parametrize("mask_passing", ["argument", "block"])
def test_images_are_rows(check_padding, mask_passing):
    class ConvGate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 3)) for _ in range(3)]
    moe = mb.Mixture(ConvGate(), experts, mb.routers.TopK(2)).double()
    x = torch.randn(6, 2, 4, 4, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True])
    y, expected = mb.call(moe, torch.where(mask.view(-1, 1, 1, 1), x, torch.nan), {"mask": mask})[0], moe(x[mask])
    torch.testing.assert_close(y[mask], expected)
    assert not y[~mask].any()


@pytest.mark.parametrize("mask_passing", ["argument", "block"])
@pytest.mark.parametrize("normalise", [True, False])
def test_soft_moe_mixes_each_sequence_as_if_it_were_alone(tokens, mask, mask_passing, normalise):
    torch.manual_seed(0)
    layer = SoftMoE(4, [make_body() for _ in range(3)], slots=2, normalise=normalise).double()
    x = torch.where(mask.unsqueeze(-1), tokens, torch.nan).requires_grad_()
    with mb.record(layer, outputs=True) as log:
        if mask_passing == "argument":
            y = layer(x, mask=mask)
        else:
            with mb.context(mask=mask):
                y = layer(x)
    sequences = [tokens[number : number + 1, real].requires_grad_() for number, real in enumerate(mask)]
    with mb.record(layer, outputs=True) as expected_log:
        expected = torch.cat([layer(sequence).squeeze(0) for sequence in sequences])
    (routing,) = log[""]
    for name in ("scores", "probs", "weights", "outputs"):
        expected_values = torch.cat([getattr(expected_routing, name) for expected_routing in expected_log[""]])
        torch.testing.assert_close(getattr(routing, name), expected_values, msg=name)
    assert routing.rows.tolist() == mask.flatten().nonzero().squeeze(1).tolist()
    torch.testing.assert_close(y[mask], expected)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    parameters = list(layer.parameters())
    loss = mb.losses.importance(routing) + y.square().sum()
    expected_loss = mb.losses.importance(join_routings(expected_log)) + expected.square().sum()
    x_gradient, *gradients = torch.autograd.grad(loss, [x, *parameters])
    expected_gradients = torch.autograd.grad(expected_loss, [*sequences, *parameters])
    torch.testing.assert_close(
        x_gradient[mask], torch.cat([gradient.squeeze(0) for gradient in expected_gradients[:3]])
    )
    assert not x_gradient[~mask].any()
    torch.testing.assert_close(gradients, list(expected_gradients[3:]))


def join_routings(log):
    """One routing of the sequences that were recorded one by one."""
    return mb.routers.Soft()(torch.cat([routing.scores for routing in log[""]]))


@pytest.mark.parametrize("masks_sequences", [False, True])
def test_in_soft_moe_the_slots_of_a_sequence_of_padding_reach_no_mixture(tokens, masks_sequences):
    torch.manual_seed(0)
    layer = SoftMoE(4, [make_inner(), make_body()], slots=2).double()
    sequence_mask = torch.tensor([True, False, True])
    mask = sequence_mask if masks_sequences else sequence_mask.unsqueeze(1).expand(3, 5)
    x = torch.where(sequence_mask.view(3, 1, 1), tokens, torch.nan)
    y, log = mb.call(layer, x, {"mask": mask})
    expected, expected_log = mb.call(layer, tokens[sequence_mask])
    torch.testing.assert_close(y[sequence_mask], expected)
    assert not y[1].any()
    routing, expected_routing = log["experts.0"][0], expected_log["experts.0"][0]
    torch.testing.assert_close(routing.weights, expected_routing.weights)
    assert routing.rows.tolist() == [0, 1, 4, 5]


def test_a_network_of_layers_reads_one_mask(tokens, mask):
    torch.manual_seed(0)
    network = nn.Sequential(
        SparseFFN(4, 6, 4, 2), nn.LayerNorm(4), make_inner(), SparseFFN(4, 6, 4, 1, shared=1)
    ).double()
    with mb.context(mask=mask), mb.record(network) as log:
        y = network(torch.where(mask.unsqueeze(-1), tokens, torch.nan))
    # LayerNorm maps the zeros of padding to its bias, which the next mixture does not read.
    torch.testing.assert_close(y[mask], network(tokens[mask]))
    assert not y[~mask].any()
    assert [len(routings[0].weights) for routings in log.values()] == [10, 10, 10]
