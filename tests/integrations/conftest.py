"""Tiny language models of transformers, each of which holds mixtures of another family."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

VOCABULARY, EXPERTS, K = 32, 4, 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "num_experts_per_tok": K,
}
# Name → class of the model, and the settings beside SIZES.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": EXPERTS}),
    "olmoe": ("Olmoe", {"num_experts": EXPERTS}),
    "qwen2_moe": (
        "Qwen2Moe",
        {"num_experts": EXPERTS, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 8},
    ),
    "qwen3_moe": ("Qwen3Moe", {"num_experts": EXPERTS, "moe_intermediate_size": 12, "head_dim": 8}),
    "gpt_oss": ("GptOss", {"num_local_experts": EXPERTS, "head_dim": 8}),
    "granite_moe": ("GraniteMoe", {"num_local_experts": EXPERTS}),
    "jamba": (
        "Jamba",
        {"num_experts": EXPERTS, "attn_layer_period": 1, "attn_layer_offset": 0, "expert_layer_offset": 0},
    ),
    "deepseek_v2": (
        "DeepseekV2",
        {
            "n_routed_experts": EXPERTS,
            "n_shared_experts": 1,
            "moe_intermediate_size": 12,
            "first_k_dense_replace": 1,
            "topk_method": "group_limited_greedy",
            "n_group": 2,
            "topk_group": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "routed_scaling_factor": 1.5,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3",
        {
            "n_routed_experts": EXPERTS,
            "n_shared_experts": 1,
            "moe_intermediate_size": 12,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "routed_scaling_factor": 2.5,
        },
    ),
    "jetmoe": ("JetMoe", {"num_local_experts": EXPERTS, "kv_channels": 8, "num_key_value_heads": 1}),
    "llama4": (
        "Llama4",
        {"num_local_experts": EXPERTS, "head_dim": 8, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 24},
    ),
}


@pytest.fixture(scope="session")
def build(transformers):
    """Builds one of the models by its name, in eval mode, with weights large enough for its gates to choose."""

    def build_model(name: str, **options: Any) -> nn.Module:
        kind, settings = MODELS[name]
        configs = [f"{kind}{suffix}" for suffix in ("TextConfig", "Config") if hasattr(transformers, f"{kind}{suffix}")]
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(
            getattr(transformers, configs[0])(**{**SIZES, **settings, **options})
        )
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        for part in model.modules():
            bias = getattr(part, "e_score_correction_bias", None)
            if isinstance(bias, torch.Tensor):
                bias.copy_(torch.linspace(-0.3, 0.3, len(bias)))
        return model.eval()

    return build_model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three sequences of seven tokens, of which the first two begin with padding."""
    ids = torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) >= torch.tensor([[2], [1], [0]])
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


@pytest.fixture
def hooks():
    """Counts the hooks on a model's modules."""

    def count_hooks(model: nn.Module) -> int:
        tables = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
        return sum(len(getattr(part, table)) for part in model.modules() for table in tables)

    return count_hooks


@pytest.fixture
def namespace():
    """A namespace of attributes, for configurations."""
    return SimpleNamespace
