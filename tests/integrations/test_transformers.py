"""Blocks of transformers, taken alone: the routing says what the block multiplies with."""

import importlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb

DIM, HIDDEN, EXPERTS = 16, 12, 8
X = torch.randn(2, 9, DIM, generator=torch.Generator().manual_seed(3))
# What every configuration calls the sizes that it has.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model"), DIM),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"), HIDDEN),
    **dict.fromkeys(("expert_ffn_hidden_size", "shared_intermediate_size", "ffn_hidden_size"), HIDDEN),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "num_expert_group", "num_expert_groups"), 4),
    "topk_group": 2,
}
# Model → its block and its configuration. The weights of a router are proportional to the `probs` of what it chose.
BLOCKS = {
    "afmoe": "AfmoeSparseMoeBlock",
    "aria": "AriaTextMoELayer",
    "bailing_hybrid": "BailingHybridMoE",
    "beam": "BeamMoE",
    "cohere2_moe": "Cohere2MoeSparseMoeBlock",
    "deepseek_v2": "DeepseekV2Moe",
    "deepseek_v3": "DeepseekV3MoE",
    "deepseek_v32": "DeepseekV32MoE",
    "deepseek_v4": "DeepseekV4SparseMoeBlock",
    "dots1": "Dots1MoE",
    "ernie4_5_moe": "Ernie4_5_MoeSparseMoeBlock",
    "exaone_moe": "ExaoneMoeSparseMoEBlock",
    "flex_olmo": "FlexOlmoSparseMoeBlock",
    "flint": "FlintSparseMoeBlock",
    "glm4_moe": "Glm4MoeMoE",
    "glm4_moe_lite": "Glm4MoeLiteMoE",
    "gpt_oss": "GptOssMLP",
    "granitemoe": "GraniteMoeMoE",
    "granitemoehybrid": "GraniteMoeHybridMoE",
    "granitemoeshared": "GraniteMoeSharedMoE",
    "hunyuan_v1_moe": "HunYuanMoEV1Moe",
    "hy_v3": "HYV3MoE",
    "jamba": "JambaSparseMoeBlock",
    "kimi_linear": "KimiLinearMoE",
    "laguna": "LagunaSparseMoeBlock",
    "lfm2_moe": "Lfm2MoeSparseMoeBlock",
    "mimo_v2_flash": "MiMoV2FlashMoE",
    "minimax": "MiniMaxSparseMoeBlock",
    "minimax_m2": "MiniMaxM2SparseMoeBlock",
    "minimax_m3_vl": "MiniMaxM3VLSparseMoeBlock",
    "mistral4": "Mistral4MoE",
    "mixtral": "MixtralSparseMoeBlock",
    "olmoe": "OlmoeSparseMoeBlock",
    "phimoe": "PhimoeSparseMoeBlock",
    "qwen2_moe": "Qwen2MoeSparseMoeBlock",
    "qwen3_5_moe": "Qwen3_5MoeSparseMoeBlock",
    "qwen3_moe": "Qwen3MoeSparseMoeBlock",
    "qwen3_next": "Qwen3NextSparseMoeBlock",
    "qwen3_vl_moe": "Qwen3VLMoeTextSparseMoeBlock",
    "solar_open": "SolarOpenMoE",
    "step3p7": "Step3p7SparseMoeBlock",
}
SIGMOID = {"afmoe", "bailing_hybrid", "beam", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "flint", "glm4_moe"}
SIGMOID |= {"glm4_moe_lite", "hy_v3", "kimi_linear", "laguna", "lfm2_moe", "mimo_v2_flash", "minimax_m2"}
SIGMOID |= {"minimax_m3_vl", "solar_open", "step3p7"}
# The other scales that a block's routed sum is multiplied by, outside of its router.
SCALED = {"beam", "minimax_m3_vl", "laguna", "step3p7"}


@pytest.fixture(autouse=True)
def _needs(transformers):
    """Everything here imports the library."""


def make_block(model: str) -> nn.Module:
    """A block with random weights, whose shared experts give 0, and with biases that matter."""
    folder = f"transformers.models.{model}"
    try:
        modeling = importlib.import_module(f"{folder}.modeling_{model}")
    except ImportError:
        pytest.skip(f"this version of transformers has no {model}")
    configs = vars(importlib.import_module(f"{folder}.configuration_{model}")).values()
    named = [kind for kind in configs if isinstance(kind, type) and kind.__module__.startswith(folder)]
    # The configuration of the text model, where there are several: it is the first to have experts.
    config = next(made for made in (kind() for kind in named) if any(hasattr(made, name) for name in list(SIZES)[7:14]))
    for name, value in SIZES.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config._experts_implementation = "eager"
    if model in SCALED:
        for name in ("routed_scaling_factor", "moe_routed_scaling_factor", "moe_router_scaling_factor"):
            setattr(config, name, 1.75)
    kind = getattr(modeling, BLOCKS[model])
    torch.manual_seed(0)
    block = kind(config, layer_idx=3) if model in ("deepseek_v4", "step3p7") else kind(config)
    for name, tensor in (*block.named_parameters(), *block.named_buffers()):
        if "shared" in name:
            nn.init.zeros_(tensor)
        elif isinstance(tensor, nn.Parameter) and tensor.ndim > 1:
            nn.init.normal_(tensor, std=0.5)
        elif tensor.is_floating_point():
            tensor.data.copy_(torch.linspace(-0.3, 0.3, tensor.numel()).view_as(tensor))
    return block.eval()


@pytest.mark.parametrize("model", BLOCKS)
def test_weights_times_outputs_are_what_the_block_computes(model):
    """Also for its gradients: they reach the router through the routing as through the block."""
    block = make_block(model)
    with mb.watch(block, outputs=True) as log:
        y = block(X)
    y = y[0] if isinstance(y, tuple) else y
    (routing,) = log[""]
    rebuilt = torch.stack(
        [
            sum(routing.weights[row, expert] * routing.outputs[row, expert] for expert in range(EXPERTS))
            for row in range(18)
        ]
    )
    torch.testing.assert_close(rebuilt.view_as(y), y, rtol=1e-4, atol=1e-4)
    router = block._modules.get("gate") or block._modules["router"]
    weights = [parameter for parameter in router.parameters() if parameter.requires_grad]
    first, second = (torch.autograd.grad(out.square().sum(), weights, retain_graph=True) for out in (y, rebuilt))
    for mine, theirs in zip(second, first, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", BLOCKS)
def test_weights_of_chosen_experts_are_proportional_to_their_probs(model):
    """So the activation that is assumed is the router's own."""
    if model == "phimoe":
        pytest.skip("its second expert is weighted by a softmax without the first")
    with torch.no_grad(), mb.watch(block := make_block(model)) as log:
        block(X)
    (routing,) = log[""]
    assert routing.distribution == (model not in SIGMOID | {"deepseek_v4"})
    expert_TK, weight_TK = (values.view(18, 2) for values in (routing.selection.expert_A, routing.selection.weight_A))
    ratio_TK = weight_TK / routing.probs.gather(1, expert_TK)
    torch.testing.assert_close(ratio_TK[:, 0], ratio_TK[:, 1], rtol=1e-4, atol=0)
    assert routing.selection.kept_A.all()


def run_expert(experts: nn.Module, expert: int, row: torch.Tensor) -> torch.Tensor:
    gate, up = (experts.gate_up_proj[expert] @ row).chunk(2)
    return experts.down_proj[expert] @ (experts.act_fn(gate) * up)


@pytest.mark.parametrize("model", ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_a_readable_loop_over_rows_and_experts_gives_the_output(model, implementation):
    block = make_block(model)
    block.experts.config._experts_implementation = implementation
    with torch.no_grad(), mb.watch(block) as log:
        y = block(X).flatten(0, 1)
        (routing,) = log[""]
        for row in range(18):
            total = torch.zeros(DIM)
            for expert in range(EXPERTS):
                if routing.weights[row, expert] != 0:
                    total += routing.weights[row, expert] * run_expert(block.experts, expert, X.flatten(0, 1)[row])
            torch.testing.assert_close(total, y[row], rtol=1e-4, atol=1e-4)
        assert (routing.weights != 0).sum(1).tolist() == [2] * 18


def test_deepseek_v3_chooses_by_groups_and_bias_and_weights_by_sigmoids():
    """The paper's rule, written down again: the log has what it gives."""
    block = make_block("deepseek_v3")
    with torch.no_grad(), mb.watch(block) as log:
        block(X)
    (routing,) = log[""]
    logits = F.linear(X.flatten(0, 1), block.gate.weight)
    torch.testing.assert_close(routing.scores, logits)
    torch.testing.assert_close(routing.probs, logits.sigmoid())
    assert not routing.distribution
    for row in range(18):
        biased = logits[row].sigmoid() + block.gate.e_score_correction_bias
        groups = biased.view(4, 2)
        best_groups = groups.topk(2).values.sum(-1).topk(2).indices.tolist()
        allowed = [expert for expert in range(EXPERTS) if expert // 2 in best_groups]
        chosen = sorted(allowed, key=biased.tolist().__getitem__, reverse=True)[:2]
        weights = logits[row].sigmoid()[chosen]
        expected = torch.zeros(EXPERTS)
        expected[chosen] = weights / weights.sum() * block.gate.routed_scaling_factor
        torch.testing.assert_close(routing.weights[row], expected)


def test_experts_called_by_keywords_in_another_order():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.router, self.experts = nn.Linear(4, 3), Experts()

        def forward(self, x):
            weights, indices = self.router(x).softmax(-1).topk(2)
            return self.experts(x, routing_weights=weights, router_indices=indices)

    class Experts(nn.Module):
        def forward(self, hidden_states, router_indices=None, routing_weights=None):
            return hidden_states * (routing_weights * (1 + router_indices)).sum(-1, keepdim=True)

    block, x = Block(), torch.randn(5, 4)
    with mb.watch(block, outputs=True) as log:
        y = block(x)
    (routing,) = log[""]
    assert routing.outputs.shape == (5, 3, 4)
    torch.testing.assert_close(torch.einsum("te,ted->td", routing.weights, routing.outputs), y)


def test_the_outputs_of_all_experts_draw_no_random_numbers():
    class Experts(nn.Module):
        def forward(self, hidden_states, top_k_index, top_k_weights):
            return F.dropout(hidden_states, 0.5)

    block = nn.Module()
    block.gate, block.experts = nn.Linear(4, 3), Experts()

    def run():
        torch.manual_seed(0)
        best = block.gate(torch.ones(5, 4)).softmax(-1).topk(2)
        return block.experts(torch.ones(5, 4), best.indices, best.values)

    plain = run()
    with mb.watch(block, outputs=True):
        assert torch.equal(run(), plain)


def test_a_factor_of_the_block_counts_only_where_the_router_does_not_apply_it():
    from moebius.integrations.transformers import scale_after_experts

    block, router = nn.Module(), nn.Module()
    assert scale_after_experts(block, router) == 1
    block.shared_expert_combination_strategy = "average"
    assert scale_after_experts(block, router) == 1
    block.shared_experts = nn.Identity()
    assert scale_after_experts(block, router) == 0.5
    block.shared_expert_combination_strategy = "sum"
    block.routed_scaling_factor = 2.5
    assert scale_after_experts(block, router) == 2.5
    router.routed_scaling_factor = 2.5
    assert scale_after_experts(block, router) == 1
    del router.routed_scaling_factor
    block.route_tokens_to_experts = lambda logits: logits
    assert scale_after_experts(block, router) == 1
