"""JetMoE: its router returns the assignments in the order of their experts, for networks and for attention."""

import pytest
import torch

import moebius as mb


@pytest.fixture
def block(transformers):
    from transformers.models.jetmoe.modeling_jetmoe import JetMoeMoE

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2}
    made = JetMoeMoE(transformers.JetMoeConfig(**sizes))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def test_a_readable_loop_gives_the_output(block):
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), mb.watch(block) as log:
        y = block(x).flatten(0, 1)
    (routing,) = log[""]
    torch.testing.assert_close(routing.scores, block.router.layer(x.flatten(0, 1)))
    for row, vector in enumerate(x.flatten(0, 1)):
        total = block.bias.clone()
        for expert in range(4):
            first, second = (block.input_linear.weight[expert] @ vector).chunk(2)
            total += routing.weights[row, expert] * (
                block.output_linear.weight[expert] @ (block.activation(first) * second)
            )
        torch.testing.assert_close(total, y[row], rtol=1e-4, atol=1e-5)
    assert (routing.weights != 0).sum(1).tolist() == [2] * 10


def test_networks_and_attention_heads_are_both_watched(build, batch):
    model = build("jetmoe")
    with torch.no_grad(), mb.watch(model) as log:
        model(**batch)
    assert sorted(log) == sorted(
        [f"model.layers.{layer}.{part}" for layer in (0, 1) for part in ("mlp", "self_attention.experts")]
    )
    assert all(len(routings) == 1 for routings in log.values())


def test_outputs_are_refused(block):
    with pytest.raises(mb.MoebiusError, match="not known for JetMoE: its experts take"), mb.watch(block, outputs=True):
        pass
