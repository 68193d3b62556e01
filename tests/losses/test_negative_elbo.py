from dataclasses import replace

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.losses.negative_elbo import negative_elbo
from moebius.routers.soft import Soft

AUX = {"reconstruction": torch.tensor([10.0, 30.0]), "kl": torch.tensor([1.0, 2.0])}
ROUTING = replace(Soft()(torch.zeros(2, 3)), aux=AUX)


@pytest.mark.parametrize(("beta", "value"), [(1.0, 21.5), (0, 20.0), (4, 26.0)])
def test_worked(beta, value):
    assert negative_elbo(ROUTING, beta=beta).item() == value


def test_it_is_above_minus_the_logarithm_of_the_images_chance():
    torch.manual_seed(0)
    gate = mb.gates.VAE(1, 4, 2, filters=[3], latent=2).double().eval()
    x = torch.rand(1, 1, 4, 4).round().double()
    with torch.no_grad():
        codes = torch.randn(100_000, 2, dtype=torch.float64)
        chances = torch.distributions.Bernoulli(logits=gate.decoder(codes)).log_prob(x).sum((1, 2, 3))
        evidence = chances.logsumexp(0) - torch.tensor(100_000.0).log()
        gate.train()
        repeated = x.expand(50_000, 1, 4, 4)
        _, log = mb.call(mb.Mixture(gate, [torch.nn.Flatten(), torch.nn.Flatten()]), repeated)
        bound = negative_elbo(log[""][0])
    assert bound > -evidence - 0.01


@pytest.mark.parametrize("missing", ["reconstruction", "kl"])
def test_a_gate_without_an_autoencoder_is_refused(missing):
    aux = {name: value for name, value in AUX.items() if name != missing}
    with pytest.raises(ArgumentError, match=f"needs '{missing}'") as caught:
        negative_elbo(replace(ROUTING, aux=aux))
    assert caught.value.fix == "gate: {kind: vae}"


def test_a_factor_below_zero_is_refused():
    with pytest.raises(ArgumentError, match=r"^beta: needs a number of at least 0"):
        negative_elbo(ROUTING, beta=-1)
