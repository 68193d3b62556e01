"""The blocks of well-known models are mixtures of ours: same weights, same outputs and gradients."""

import warnings

import pytest
import torch
from torch import nn

import moebius as mb

DIM, HIDDEN, EXPERTS = 12, 20, 8
X = torch.randn(2, 9, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def transformers():
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")


class Nothing(nn.Module):
    """Adds nothing: of a block with shared experts, leaves the others."""

    def forward(self, x):
        return torch.zeros_like(x)


def filled(block: nn.Module) -> nn.Module:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.eval()


def ours(block: nn.Module, router: mb.Router, activation: str = "swiglu") -> mb.Mixture:
    """The mixture with the block's weights: its experts keep their first two matrices in one, as `FFN` does."""
    experts = []
    for inner, outer in zip(block.experts.gate_up_proj, block.experts.down_proj, strict=True):
        expert = mb.experts.FFN(DIM, HIDDEN, activation, bias=False)
        expert.inner.weight.data.copy_(inner)
        expert.outer.weight.data.copy_(outer)
        experts.append(expert)
    gate = mb.gates.Linear(DIM, EXPERTS, bias=False)
    gate.linear.weight.data.copy_(block.gate.weight)
    return mb.Mixture(gate, experts, router)


def agree(block: nn.Module, moe: mb.Mixture) -> None:
    results = []
    for module in (block, moe):
        rows = X.clone().requires_grad_()
        y = module(rows)
        y = y[0] if isinstance(y, tuple) else y
        y.square().sum().backward()
        gate = block.gate.weight.grad if module is block else moe.gate.linear.weight.grad
        results.append((y.detach(), rows.grad, gate))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    # Sums of hundreds of float32 products in another order.
    torch.testing.assert_close(results[0][1:], results[1][1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [2, 3])
def test_a_mixtral_block_is_top_k_renormalised_over_swiglu_experts(k):
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=DIM, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=k, hidden_act="silu"
    )
    block = filled(MixtralSparseMoeBlock(config))
    agree(block, ours(block, mb.routers.TopK(k)))


@pytest.mark.parametrize(("k", "renormalised"), [(4, False), (4, True), (1, False)])
def test_an_olmoe_block_is_top_k_of_the_full_softmax(k, renormalised):
    from transformers.models.olmoe.modeling_olmoe import OlmoeConfig, OlmoeSparseMoeBlock

    torch.manual_seed(0)
    config = OlmoeConfig(
        hidden_size=DIM,
        intermediate_size=HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_tok=k,
        norm_topk_prob=renormalised,
        hidden_act="silu",
    )
    block = filled(OlmoeSparseMoeBlock(config))
    agree(block, ours(block, mb.routers.TopK(k, renormalise=renormalised)))


def test_a_deepseek_block_is_top_k_of_sigmoids_with_a_bias_on_the_choice():
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Config, DeepseekV3MoE

    torch.manual_seed(0)
    config = DeepseekV3Config(
        hidden_size=DIM,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=EXPERTS,
        num_experts_per_tok=3,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
        norm_topk_prob=True,
        routed_scaling_factor=1.0,
        hidden_act="silu",
    )
    block = filled(DeepseekV3MoE(config))
    block.shared_experts = Nothing()
    bias = torch.linspace(-0.5, 0.5, EXPERTS)
    block.gate.e_score_correction_bias.copy_(bias)
    moe = ours(block, mb.routers.TopK(3, "sigmoid", bias_rate=0.001, experts=EXPERTS)).eval()
    without = moe(X)
    moe.router.bias.copy_(bias)
    assert not torch.allclose(moe(X), without)
    agree(block, moe)


@pytest.mark.parametrize("capacity", [2, 100])
def test_a_switch_block_is_the_switch_router(capacity):
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersConfig,
        SwitchTransformersSparseMLP,
    )

    torch.manual_seed(0)
    config = SwitchTransformersConfig(
        d_model=DIM, d_ff=HIDDEN, num_experts=EXPERTS, expert_capacity=capacity, dense_act_fn="gelu", dropout_rate=0.0
    )
    block = filled(SwitchTransformersSparseMLP(config))
    experts = []
    for number in range(EXPERTS):
        theirs, expert = block.experts[f"expert_{number}"], mb.experts.FFN(DIM, HIDDEN, "gelu", bias=False)
        expert.inner.weight.data.copy_(theirs.wi.weight)
        expert.outer.weight.data.copy_(theirs.wo.weight)
        experts.append(expert)
    gate = mb.gates.Linear(DIM, EXPERTS, bias=False)
    gate.linear.weight.data.copy_(block.router.classifier.weight)
    # Their capacity is a number of rows, counted in each sequence.
    router = mb.routers.Switch(eval_capacity=capacity * EXPERTS / X.shape[1])
    moe = mb.Mixture(gate, experts, router).eval()
    for sequence in X:
        torch.testing.assert_close(moe(sequence), block(sequence.unsqueeze(0))[0], rtol=1e-5, atol=1e-5)
    dropped = sum(mb.call(moe, sequence)[1][""][0].aux["dropped"] for sequence in X)
    assert (dropped > 0) == (capacity == 2)
