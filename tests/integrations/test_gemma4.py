"""Gemma 4: the router's first output are probabilities, and scores are those of its projection."""

import pytest
import torch
from torch import nn

import moebius as mb


@pytest.fixture
def layer(transformers):
    """Router and experts side by side in a layer, as in the model, without the attention around them."""
    modeling = pytest.importorskip("transformers.models.gemma4.modeling_gemma4")

    class Layer(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.router, self.experts = modeling.Gemma4TextRouter(config), modeling.Gemma4TextExperts(config)

        def forward(self, x):
            rows = x.flatten(0, 1)
            _, weights, indices = self.router(rows)
            return self.experts(rows, indices, weights).view_as(x)

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "moe_intermediate_size": 12, "num_experts": 4, "top_k_experts": 2}
    config = transformers.Gemma4TextConfig(**sizes)
    config._experts_implementation = "eager"
    made = Layer(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def test_scores_are_logits_and_weights_carry_the_scale_of_each_expert(layer):
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), mb.watch(layer, outputs=True) as log:
        y = layer(x)
        probabilities, weights, indices = layer.router(x.flatten(0, 1))
    (routing,) = log[""]
    assert routing.distribution
    torch.testing.assert_close(routing.probs, probabilities)
    torch.testing.assert_close(routing.scores.softmax(-1), probabilities)
    assert torch.equal(routing.weights.gather(1, indices), weights)
    assert (weights < 0).any()  # a scale may be negative, and has no logarithm
    assert torch.equal(routing.log_weights.isinf(), routing.weights <= 0)
    rebuilt = torch.einsum("te,ted->td", routing.weights, routing.outputs)
    torch.testing.assert_close(rebuilt.view_as(y), y, rtol=1e-4, atol=1e-5)


def test_the_family_is_asked_before_the_general_one(layer):
    assert mb.integrations.Gemma4().recognises(layer)
    assert mb.integrations.Transformers().recognises(layer)
    assert mb.integrations.Transformers().general
    assert not mb.integrations.Gemma4().general
