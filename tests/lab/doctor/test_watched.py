"""The doctor on blocks of transformers, tiny and random."""

import pytest
import torch

from moebius.lab.doctor import diagnose

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
MODELS = {
    "Mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "Olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "Qwen3Moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 8},
    "DeepseekV3": {
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 2,
        "moe_intermediate_size": 12,
        "first_k_dense_replace": 0,
        "q_lora_rank": None,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "qk_nope_head_dim": 4,
        "n_shared_experts": 1,
    },
}


def build(name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **MODELS[name])
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def batches(padding=0, count=4):
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        ids = torch.randint(0, 60, (8, 32), generator=random)
        mask = torch.ones_like(ids)
        if padding:
            mask[:, -padding:] = 0
        yield {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", MODELS)
def test_examines_every_block(name):
    diagnosis = diagnose(build(name), batches())
    assert len(diagnosis.examinations) == 2
    for gate in diagnosis.examinations:
        assert len(gate.rows) == 4 * 8 * 32
        assert (gate.rows.experts, gate.rows.k) == (6, 2)
        assert not gate.moved.any()
    assert {"load", "input_dependence"} <= set(diagnosis.tables())


@pytest.mark.parametrize("name", MODELS)
def test_names_what_was_done_to_a_block(name):
    model = build(name)
    blocks = [part for path, part in model.named_modules() if path.endswith((".mlp", ".block_sparse_moe"))]
    gate = blocks[0].gate
    with torch.no_grad():
        # All tokens have a large common feature, which one pair of experts alone reads.
        gate.weight.zero_()
        if getattr(gate, "e_score_correction_bias", None) is not None:
            gate.e_score_correction_bias[:2] = 9.0
        else:
            for layer in model.modules():
                if type(layer).__name__.endswith("RMSNorm"):
                    layer.register_forward_hook(
                        lambda module, args, y: torch.cat([torch.ones_like(y[..., :1]), y[..., 1:]], -1)
                    )
            gate.weight[:2, 0] = 50.0
    diagnosis = diagnose(model, batches())
    first = [finding for finding in diagnosis if finding.gate == diagnosis.examinations[0].gate]
    assert {"collapsed gate"} <= {finding.kind for finding in first}
    assert next(finding for finding in first if finding.kind == "collapsed gate").experts == (2, 3, 4, 5)


def test_padding_that_experts_compute_is_found():
    diagnosis = diagnose(build("Mixtral"), batches(padding=8))
    kinds = [finding for finding in diagnosis if finding.kind == "padding routed"]
    assert len(kinds) == 2
    assert kinds[0].effect == pytest.approx(0.25)
    assert len(diagnosis.examinations[0].rows) == 4 * 8 * 24


def test_equal_experts_are_found():
    model = build("Mixtral")
    experts = next(part for part in model.modules() if type(part).__name__ == "MixtralExperts")
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter[1] = parameter[0]
    diagnosis = diagnose(model, batches())
    (finding,) = [finding for finding in diagnosis if finding.kind == "redundant experts"]
    assert finding.experts == (0, 1)
