"""Converted blocks of transformers: outputs and gradients of the block, its memory, and the way back."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import moebius as mb
from moebius.kit.errors import ArgumentError

NAMES = [
    *("mixtral", "mixtral_gelu", "olmoe", "olmoe_renormalised", "olmoe_one", "qwen2_moe", "qwen3_moe", "flex_olmo"),
    *("deepseek_v2", "deepseek_v2_greedy", "deepseek_v3", "deepseek_v3_one_group", "glm4_moe", "dots1", "granite_moe"),
]


class Float64Throughout(TorchFunctionMode):
    """Where a router of transformers rounds to float32, values stay in float64: only so 1e-9 can be asked for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = torch.Tensor.double if function is torch.Tensor.float else function
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*args, **kwargs)


@pytest.fixture
def block(build, blocks):
    return lambda name, **options: next(iter(blocks(build(name, **options)).values()))


def run(module, x):
    """Output, and gradients of the input and of all parameters by their identity."""
    x = x.clone().requires_grad_()
    for parameter in module.parameters():
        parameter.grad = None
    y = module(x)
    (y * torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)).square().sum().backward()
    return y.detach(), x.grad, {id(parameter): parameter.grad for parameter in module.parameters()}


def compare(block, layer, x, block_mode, **tolerance):
    with block_mode:
        y, x_gradient, gradients = run(block, x)
    layer_y, layer_x_gradient, layer_gradients = run(layer, x)
    torch.testing.assert_close(layer_y, y, **tolerance)
    torch.testing.assert_close(layer_x_gradient, x_gradient, **tolerance)
    expert = getattr(block, "shared_experts", getattr(block, "shared_expert", None))
    for name in () if expert is None else dict(expert.up_proj.named_parameters()):
        inner = getattr((layer.block if hasattr(layer, "block") else layer.expert).inner, name)
        halves = [gradients.pop(id(getattr(part, name))) for part in (expert.gate_proj, expert.up_proj)]
        gradients[id(inner)] = torch.cat(halves)
    assert gradients.keys() == layer_gradients.keys()
    for key, gradient in gradients.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(layer_gradients[key], gradient, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_every_gradient_are_those_of_the_block(name, block):
    original = block(name)
    x = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(1))
    compare(original, mb.convert.from_transformers(original), x, torch.enable_grad(), rtol=1e-4, atol=1e-3)
    original = original.double().train()
    layer = mb.convert.from_transformers(original)
    assert layer.training
    for mode in (True, False):
        compare(original.train(mode), layer.train(mode), x.double(), Float64Throughout(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_half_precision_chooses_the_same_experts_and_rounds_as_the_block_does(name, block):
    original, x = block(name).bfloat16(), torch.randn(60, 9, 16).bfloat16()
    layer = mb.convert.from_transformers(original)
    with mb.record(layer) as log:
        y = layer(x)
    (routing,) = (routing for routings in log.values() for routing in routings)
    _, _, chosen = original.gate(x.flatten(0, 1))
    assert torch.equal((routing.weights != 0).nonzero()[:, 1].view(-1, 3), chosen.sort().values)
    exact = copy.deepcopy(original).float()(x.float())
    error, original_error = ((output.float() - exact).square().mean().sqrt() for output in (y, original(x)))
    assert error < 1.1 * original_error


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_is_exact(name, block):
    original = block(name)
    layer = mb.convert.from_transformers(original)
    again = mb.convert.to_transformers(layer, like=original)
    assert type(again) is type(original)
    assert again.experts.config is original.experts.config
    torch.testing.assert_close(dict(again.state_dict()), dict(original.state_dict()), rtol=0, atol=0)
    x = torch.randn(2, 5, 16)
    assert torch.equal(again(x), original(x))


def test_the_way_back_by_a_configuration(build, blocks):
    model = build("deepseek_v3")
    original = blocks(model)["model.layers.1.mlp"]
    again = mb.convert.to_transformers(mb.convert.from_transformers(original), like=model.config)
    torch.testing.assert_close(dict(again.state_dict()), dict(original.state_dict()), rtol=0, atol=0)


def test_weights_are_not_copied(block):
    original = block("qwen2_moe")
    layer = mb.convert.from_transformers(original)
    again = mb.convert.to_transformers(layer, like=original)
    mixture = layer.layer
    for source in (original, again):
        assert mixture.experts.inner_weight is source.experts.gate_up_proj
        assert mixture.experts.outer_weight is source.experts.down_proj
        assert mixture.gate.linear.weight.data_ptr() == source.gate.weight.data_ptr()
        assert layer.expert.outer.weight.data_ptr() == source.shared_expert.down_proj.weight.data_ptr()
        assert layer.gate.linear.weight.data_ptr() == source.shared_expert_gate.weight.data_ptr()
        memory = layer.expert.inner.weight.untyped_storage().data_ptr()
        halves = (source.shared_expert.gate_proj.weight, source.shared_expert.up_proj.weight)
        assert memory not in {half.untyped_storage().data_ptr() for half in halves}


def test_the_bias_of_the_choice_is_shared_in_float32(block):
    original = block("deepseek_v3")
    layer = mb.convert.from_transformers(original)
    assert layer.layer.router.bias.data_ptr() == original.gate.e_score_correction_bias.data_ptr()
    assert mb.convert.from_transformers(original.bfloat16()).layer.router.bias.dtype == torch.float32


def test_frozen_weights_stay_frozen(block):
    original = block("qwen2_moe").requires_grad_(False)
    layer = mb.convert.from_transformers(original)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    again = mb.convert.to_transformers(layer, like=block("qwen2_moe"))
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen2_moe", "deepseek_v2", "deepseek_v3"])
def test_a_converted_layer_is_saved_and_loaded(name, block, tmp_path):
    original = block(name)
    layer = mb.convert.from_transformers(original)
    mb.save(layer, tmp_path)
    loaded, x = mb.load(tmp_path), torch.randn(2, 5, 16)
    assert torch.equal(loaded(x), layer(x))
    again = mb.convert.to_transformers(loaded, like=original)
    torch.testing.assert_close(dict(again.state_dict()), dict(original.state_dict()), rtol=0, atol=0)


def test_padding_gets_nothing(block):
    layer, x = mb.convert.from_transformers(block("deepseek_v3")), torch.randn(2, 3, 16)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    y = layer(x, mask=mask)
    assert not y[~mask].any()
    torch.testing.assert_close(y[mask], layer(x)[mask])


def changed(part, **values):
    for name, value in values.items():
        setattr(part, name, value)


@pytest.mark.parametrize(
    ("name", "options", "change", "message", "fix"),
    [
        ("mixtral", {"router_jitter_noise": 0.1}, None, "block.jitter_noise: multiplies its input", "jitter_noise = 0"),
        ("mixtral", {"num_experts_per_tok": 1}, None, "weight is renormalised to 1", "set_experts_implementation"),
        ("mixtral", {"hidden_act": "relu"}, None, "need to be plain SwiGLU or GeGLU", "set_experts_implementation"),
        ("deepseek_v3", {"num_experts_per_tok": 5}, None, "experts of closed groups", "set_experts_implementation"),
        ("olmoe", {}, lambda block: changed(block.gate, forward=len), "its router is none", "set_experts"),
        ("olmoe", {}, lambda block: changed(block.experts, _is_expert_parallel=True), "are sharded", "parallelism"),
        ("olmoe", {}, lambda block: changed(block.experts, act_fn=nn.Tanh()), "SwiGLU or GeGLU", "set_experts"),
        ("qwen2_moe", {}, lambda block: changed(block.shared_expert, act_fn=nn.GELU()), "the shared expert", "set_exp"),
    ],
)
def test_what_no_layer_computes_is_refused(name, options, change, message, fix, block):
    original = block(name, **options)
    if change is not None:
        change(original)
    with pytest.raises(ArgumentError, match=message) as caught:
        mb.convert.from_transformers(original)
    assert fix in caught.value.fix


def test_other_modules_are_refused_with_what_to_pass(build):
    model = build("mixtral")
    with pytest.raises(ArgumentError, match="got 'MixtralForCausalLM'") as caught:
        mb.convert.from_transformers(model)
    assert caught.value.fix == 'mb.convert.from_transformers(model.get_submodule("model.layers.0.mlp"))'
    with pytest.raises(ArgumentError, match="got 'Linear'"):
        mb.convert.from_transformers(nn.Linear(4, 4))


def test_without_transformers_the_error_says_what_to_install():
    code = """
import sys
sys.modules["transformers"] = None
import torch, moebius as mb
try:
    mb.convert.from_transformers(torch.nn.Linear(4, 4))
except mb.MoebiusError as error:
    print(error.fix)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "pip install 'transformers>=5'\n"


def test_a_layer_that_a_block_cannot_hold_is_refused(block):
    original = block("olmoe")
    rule = "renormalise: blocks like this OlmoeSparseMoeBlock have False, got True"
    with pytest.raises(ArgumentError, match=rule):
        mb.convert.to_transformers(mb.layers.SparseFFN(16, 24, 8, 3, "swiglu", bias=False), like=original)
    router = mb.routers.TopK(3, renormalise=False)
    with pytest.raises(ArgumentError, match=r"layer: hidden: .* have 24, got 20"):
        mb.convert.to_transformers(mb.layers.SparseFFN(16, 20, 8, 3, "swiglu", False, router=router), like=original)
    for layer in (
        nn.Linear(4, 4),
        mb.layers.SparseFFN(16, 24, 8, 3, "swiglu"),
        mb.layers.SparseFFN(16, 24, 8, 3, "swiglu", bias=False, router=mb.routers.Switch()),
        mb.Mixture(mb.gates.MLP(16, 8), mb.Stack.of(lambda: mb.experts.FFN(16, 24, "swiglu", bias=False), 8)),
        mb.layers.SharedExpert(mb.layers.SparseFFN(16, 24, 8, 3, "swiglu", bias=False), nn.Linear(16, 16)),
    ):
        with pytest.raises(ArgumentError, match=r"layer: .*need") as caught:
            mb.convert.to_transformers(layer, like=original)
        assert "like=block" in caught.value.fix
    with pytest.raises(ArgumentError, match="like: needs to be a block of transformers, or the configuration"):
        mb.convert.to_transformers(mb.convert.from_transformers(original), like="olmoe")


def test_a_layer_that_was_built_here_becomes_a_block(block):
    original = block("olmoe")
    layer = mb.layers.SparseFFN(16, 24, 8, 3, "swiglu", bias=False, router=mb.routers.TopK(3, renormalise=False))
    made, x = mb.convert.to_transformers(layer, like=original), torch.randn(2, 5, 16)
    torch.testing.assert_close(made(x), layer(x))
