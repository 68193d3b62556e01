"""The experts implementation "moebius" of transformers: outputs, gradients and tokens are those of "eager"."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

import transformers

import moebius as mb
from moebius.integrations import _experts_function

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}
MODELS = {
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmoe": {"num_experts": 8, "num_experts_per_tok": 3},
    "Qwen3Moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 10, "head_dim": 8},
    "Qwen2Moe": {"num_experts": 6, "moe_intermediate_size": 10, "shared_expert_intermediate_size": 8},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
}
# Experts of another form, which transformers computes.
OTHERS = {"GptOss"}


def make(kind, activation="silu"):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **MODELS[kind], hidden_act=activation)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def operator_calls(monkeypatch):
    """How often the operator has run."""
    from moebius.execution import _sorted_ffn

    calls, operator = [], _sorted_ffn.sorted_ffn

    def count(*arguments):
        calls.append(len(arguments[0]))
        return operator(*arguments)

    monkeypatch.setattr(_sorted_ffn, "sorted_ffn", count)
    return calls


@pytest.mark.parametrize(
    ("kind", "activation"), [*((kind, "silu") for kind in MODELS), ("Mixtral", "gelu"), ("Mixtral", "relu")]
)
def test_outputs_and_every_gradient_are_those_of_eager(kind, activation, operator_calls):
    name, tokens, results = mb.integrations.transformers.register(), torch.randint(40, (2, 11)), {}
    model = make(kind, activation)
    for implementation in ("eager", name):
        model.zero_grad()
        model.set_experts_implementation(implementation)
        output = model(tokens, labels=tokens)
        output.loss.backward()
        gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        results[implementation] = (output.logits.detach(), gradients)
    torch.testing.assert_close(*(results[each] for each in ("eager", name)), rtol=1e-9, atol=1e-11)
    assert bool(operator_calls) == (kind not in OTHERS and activation in ("silu", "gelu"))


def test_tokens_are_those_of_eager():
    name, tokens, model = mb.integrations.transformers.register(), torch.randint(40, (1, 5)), make("Olmoe")
    generated = []
    for implementation in ("eager", name):
        model.set_experts_implementation(implementation)
        generated.append(model.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=0))
    assert torch.equal(*generated)


def test_the_name_is_there_without_another_import():
    code = "import moebius as mb; mb.integrations.transformers.register(); mb.integrations.Transformers"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_without_an_expert_get_nothing():
    model = make("Olmoe")
    experts = model.model.layers[0].mlp.experts
    rows, index = torch.randn(3, 16).double(), torch.tensor([[0, 8], [8, 8], [2, 5]])
    weights = torch.rand(3, 2).double().requires_grad_()
    y = _experts_function.experts_forward(experts, rows, index, weights)
    y.sum().backward()
    alone = _experts_function.experts_forward(experts, rows[:1], index[:1, :1], weights[:1, :1])
    torch.testing.assert_close(y[:1], alone)
    assert not y[1].any()
    assert torch.equal(weights.grad == 0, index == 8)


def test_rows_of_half_precision_are_those_of_eager_to_rounding():
    name, tokens, model = (
        mb.integrations.transformers.register(),
        torch.randint(40, (2, 11)),
        make("Mixtral").bfloat16(),
    )
    outputs = []
    for implementation in ("eager", name):
        model.set_experts_implementation(implementation)
        outputs.append(model(tokens).logits.float())
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05)
