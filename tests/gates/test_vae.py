import inspect
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

import moebius as mb
from moebius.gates.vae import VAE
from moebius.kit.errors import ArgumentError
from moebius.losses.negative_elbo import negative_elbo


def make_gate(size=8, **changed):
    torch.manual_seed(0)
    return VAE(**{"channels": 1, "size": size, "experts": 3, "filters": [4, 5], "latent": 6, **changed})


def test_worked():
    gate = make_gate(size=2, filters=[1], latent=1, experts=2)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
        # Mean 2 and log-variance ln 4, whatever the image; scores z and −z; every pixel a coin.
        gate.encoder.dense.linears[0].bias.copy_(torch.tensor([2.0, 2 * math.log(2)]))
        gate.scores.linears[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    scores, aux = gate.eval()(torch.tensor([[[[0.0, 1.0], [0.5, 1.0]]]]))
    assert scores.tolist() == [[2.0, -2.0]]
    # ½ (4 + 4 − 1 − ln 4) and 4 ln 2.
    torch.testing.assert_close(aux["kl"], torch.tensor([2.80685282]))
    torch.testing.assert_close(aux["reconstruction"], torch.tensor([2.77258872]))


def test_both_numbers_are_those_of_the_distributions():
    gate, x = make_gate().double().eval(), torch.rand(5, 1, 8, 8).round().double()
    _, aux = gate(x)
    mean, log_variance = gate.encoder(x).chunk(2, -1)
    prior = Normal(torch.zeros(6).double(), torch.ones(6).double())
    torch.testing.assert_close(aux["kl"], kl_divergence(Normal(mean, log_variance.exp().sqrt()), prior).sum(-1))
    pixels = Bernoulli(logits=gate.decoder(mean))
    torch.testing.assert_close(aux["reconstruction"], -pixels.log_prob(x).sum((1, 2, 3)))


def test_codes_are_drawn_around_the_mean_while_training():
    gate, x = make_gate(), torch.rand(1, 1, 8, 8).expand(20000, 1, 8, 8)
    with torch.no_grad():
        gate.encoder.dense.linears[0].bias[6:] = -2.0
        mean, log_variance = gate.encoder(x[:1]).chunk(2, -1)
        samples = gate(x)[0]
        weight = gate.scores.linears[0].weight
        torch.testing.assert_close(samples.mean(0), gate.scores(mean)[0], atol=0.01, rtol=0)
        spread = (weight.square() @ log_variance[0].exp()).sqrt()
        torch.testing.assert_close(samples.std(0), spread, rtol=0.03, atol=0)


@pytest.mark.parametrize(("training", "gradients", "runs"), [(1, 1, True), (1, 0, True), (0, 1, True), (0, 0, False)])
def test_inference_costs_no_decoder(training, gradients, runs):
    gate = make_gate().train(bool(training))
    calls = []
    gate.decoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.set_grad_enabled(bool(gradients)):
        _, aux = gate(torch.rand(2, 1, 8, 8))
    assert bool(calls) == runs == ("reconstruction" in aux)
    assert "kl" in aux


@pytest.mark.parametrize("size", [4, 7, 9, 11, 32])
def test_any_size_comes_back_whole(size):
    gate = make_gate(size=size, channels=2)
    assert gate.decoder(torch.zeros(3, 6)).shape == (3, 2, size, size)


def test_the_score_trains_the_encoder_and_the_bound_the_whole():
    gate, x = make_gate(), torch.rand(4, 1, 8, 8)
    gate(x)[0].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in gate.encoder.parameters())
    assert all(p.grad is None for p in gate.decoder.parameters())
    gate(x)[1]["reconstruction"].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in gate.decoder.parameters())


def test_saturated_pixels_have_gradients():
    gate, x = make_gate(), torch.ones(2, 1, 8, 8)
    with torch.no_grad():
        gate.decoder.convolutions[-1].bias.fill_(-1e4)
    reconstruction = gate(x)[1]["reconstruction"]
    torch.testing.assert_close(reconstruction, torch.full((2,), 64e4), rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(reconstruction.sum(), gate.decoder.convolutions[-1].bias)
    torch.testing.assert_close(gradient, torch.tensor([-128.0]))


def test_under_autocast_the_numbers_stay_single():
    gate, x = make_gate().eval(), torch.rand(4, 1, 8, 8)
    _, exact = gate(x)
    with torch.autocast("cpu", torch.bfloat16):
        _, rounded = gate(x)
    assert all(value.dtype == torch.float32 for value in rounded.values())
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


def test_it_learns_to_tell_two_images_apart_through_the_bound_alone():
    gate = make_gate(latent=2)
    bars = torch.zeros(2, 1, 8, 8)
    bars[0, :, :, :4], bars[1, :, :4] = 1.0, 1.0
    moe = mb.Mixture(gate, [mb.experts.Linear(64, 2) for _ in range(3)])
    optimizer, x = torch.optim.Adam(gate.parameters(), 0.01), bars.repeat(8, 1, 1, 1)
    values = []
    for _ in range(150):
        _, log = mb.call(moe, x)
        loss = negative_elbo(log[""][0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    # 16 pixels are 1 in both images, 16 in one alone: without a code 32 ln 2 = 22 nats, with it ln 2.
    assert values[0] > 40
    assert values[-1] < 8
    assert F.mse_loss(gate.decoder(gate.encoder(bars).chunk(2, -1)[0]).sigmoid(), bars) < 0.05


def test_it_can_be_built_again_from_its_attributes():
    gate = make_gate(hidden=[7])
    arguments = {name: getattr(gate, name) for name in inspect.signature(VAE).parameters}
    assert str(VAE(**arguments)) == str(gate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": []}, r"^filters: needs at least one width"),
        ({"filters": [4] * 4}, r"^filters: an image 8 pixels wide can be halved 3 times"),
        ({"latent": 0}, r"^latent: needs a whole number of at least 1"),
        ({"hidden": [0]}, r"^hidden: "),
        ({"experts": 0}, r"^experts: needs a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        make_gate(**arguments)
