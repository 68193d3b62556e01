"""The blocks of well-known models are mixtures of ours: same weights, same outputs and gradients."""

import warnings

import pytest
import torch
from torch import nn

import moebius as mb

DIM, HIDDEN, EXPERTS = 12, 20, 8


@pytest.fixture(scope="module", autouse=True)
def transformers():
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")


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
    x = torch.randn(2, 9, DIM, generator=torch.Generator().manual_seed(1))
    results = []
    for module in (block, moe):
        given = x.clone().requires_grad_()
        y = module(given)
        y = y[0] if isinstance(y, tuple) else y
        y.square().sum().backward()
        gate = block.gate.weight.grad if module is block else moe.gate.linear.weight.grad
        results.append((y.detach(), given.grad, gate))
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
