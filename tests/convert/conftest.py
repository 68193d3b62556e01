"""Tiny language models of transformers, one for each form of mixture that can be converted."""

from typing import Any

import pytest
import torch
from torch import nn

import moebius as mb

VOCABULARY, DIM, EXPERTS = 32, 16, 8
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": None,
    "num_experts_per_tok": 3,
}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
GROUPS = {
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 2,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}
QWEN = {"num_experts": EXPERTS, "moe_intermediate_size": 12}
# Name → class of the model, and the settings beside SIZES.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": EXPERTS}),
    "mixtral_gelu": ("Mixtral", {"num_local_experts": EXPERTS, "hidden_act": "gelu"}),
    "olmoe": ("Olmoe", {"num_experts": EXPERTS, "norm_topk_prob": False}),
    "olmoe_renormalised": ("Olmoe", {"num_experts": EXPERTS, "norm_topk_prob": True}),
    "olmoe_one": ("Olmoe", {"num_experts": EXPERTS, "norm_topk_prob": False, "num_experts_per_tok": 1}),
    "qwen2_moe": ("Qwen2Moe", {**QWEN, "shared_expert_intermediate_size": 20}),
    "qwen3_moe": ("Qwen3Moe", {**QWEN, "head_dim": 8, "norm_topk_prob": True}),
    "deepseek_v2": ("DeepseekV2", {**GROUPS, **LATENT, "topk_method": "group_limited_greedy"}),
    "deepseek_v2_greedy": ("DeepseekV2", {**GROUPS, **LATENT, "topk_method": "greedy", "mlp_bias": True}),
    "deepseek_v3": ("DeepseekV3", {**GROUPS, **LATENT}),
    "deepseek_v3_one_group": (
        "DeepseekV3",
        {**GROUPS, **LATENT, "n_group": 1, "topk_group": 1, "norm_topk_prob": False},
    ),
    "glm4_moe": ("Glm4Moe", {**GROUPS, "head_dim": 8}),
    "dots1": ("Dots1", {**GROUPS, "head_dim": 8}),
    "granite_moe": ("GraniteMoe", {"num_local_experts": EXPERTS}),
    "flex_olmo": ("FlexOlmo", {"num_experts": EXPERTS}),
}


@pytest.fixture(scope="session")
def build(transformers):
    """Builds one of the models by its name, with weights large enough for its gates to choose; experts run eagerly."""

    def build_model(name: str, **options: Any) -> nn.Module:
        kind, settings = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**{**SIZES, **settings, **options})
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
        for part in model.modules():
            bias = getattr(part, "e_score_correction_bias", None)
            if isinstance(bias, torch.Tensor):
                bias.copy_(torch.linspace(-0.25, 0.25, len(bias)))
        model.set_experts_implementation("eager")
        return model.eval()

    return build_model


@pytest.fixture(scope="session")
def blocks():
    """The mixtures of a model: path → block."""

    def find_blocks(model: nn.Module) -> dict[str, nn.Module]:
        parts = model.named_modules()
        return {name: part for name, part in parts if hasattr(getattr(part, "experts", None), "gate_up_proj")}

    return find_blocks


@pytest.fixture(scope="session")
def convert_model(blocks):
    """Puts a converted layer in the place of every mixture of a model."""

    def convert(model: nn.Module) -> nn.Module:
        for name, block in blocks(model).items():
            model.set_submodule(name, mb.convert.from_transformers(block))
        assert not blocks(model)
        return model

    return convert
