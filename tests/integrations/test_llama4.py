"""Llama 4: the weights are those of the experts' inputs."""

import pytest
import torch

import moebius as mb


@pytest.fixture
def block(transformers):
    from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2}
    made = Llama4TextMoe(transformers.Llama4TextConfig(**sizes))
    for name, parameter in made.named_parameters():
        torch.nn.init.constant_(parameter, 0) if "shared" in name else torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def test_experts_of_weighted_rows_add_up_to_the_output(block):
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), mb.watch(block) as log:
        y, logits = block(x)
    (routing,) = log[""]
    assert torch.equal(routing.scores, logits)
    torch.testing.assert_close(routing.probs, logits.sigmoid())
    assert not routing.distribution
    for row, vector in enumerate(x.flatten(0, 1)):
        total = torch.zeros(8)
        for expert in range(4):
            gate, up = (routing.weights[row, expert] * vector @ block.experts.gate_up_proj[expert]).chunk(2)
            total += (up * block.experts.act_fn(gate)) @ block.experts.down_proj[expert]
        torch.testing.assert_close(total, y[row], rtol=1e-4, atol=1e-5)
    assert (routing.weights != 0).sum(1).tolist() == [2] * 10


def test_outputs_are_refused(block):
    with (
        pytest.raises(mb.MoebiusError, match="not known for Llama 4: the router scales"),
        mb.watch(block, outputs=True),
    ):
        pass
    assert not block.router._forward_hooks
