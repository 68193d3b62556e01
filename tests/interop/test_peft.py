"""PEFT: adapters of experts take effect, learn alone, are saved, and melt into the weights."""

import copy
import warnings

import pytest
import torch
from torch import nn

import moebius as mb

# Where an expert of each model has its dense layers: modules to wrap in a list, tensors (E, …) in a stack.
TARGETS = {
    "list": {"target_modules": r"experts\.\d+\.[02]"},
    "stack": {"target_modules": [], "target_parameters": ["experts.0_weight", "experts.2_weight"]},
    "ffn": {"target_modules": [], "target_parameters": ["experts.inner_weight", "experts.outer_weight"]},
    "nested": {
        "target_modules": r"experts\.0\.experts\..*(linear|layers\.\d)",
        "target_parameters": ["1.experts.network_layers_0_weight", "1.experts.network_layers_1_weight"],
    },
}
WRAPPED = {"list": 8, "stack": 2, "ffn": 2, "nested": 5}


@pytest.fixture(scope="module")
def peft():
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[dev]'")


@pytest.fixture
def adapted(peft, name, model):
    """The model with adapters, and what they are made of."""
    config = peft.LoraConfig(r=2, lora_alpha=4, **TARGETS[name])
    return peft.get_peft_model(model.eval(), config)


def adapters(adapted):
    return {name: parameter for name, parameter in adapted.named_parameters() if "lora_" in name}


def trained(adapted, train):
    """After some steps of what asks for gradients."""
    learning = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    train(adapted, 3, torch.optim.AdamW(learning, lr=0.05))
    return adapted


def test_adapters_begin_without_effect_and_then_learn_alone(name, adapted, build, train, outputs):
    base = build(name).eval()
    torch.testing.assert_close(outputs(adapted), outputs(base))
    assert {name for name, parameter in adapted.named_parameters() if parameter.requires_grad} == set(adapters(adapted))
    assert len(adapters(adapted)) == 2 * WRAPPED[name]
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    trained(adapted, train)
    changed = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(adapters(adapted))
    assert not torch.allclose(outputs(adapted), outputs(base), atol=1e-2)


def test_gradients_reach_every_adapter(adapted, train, batch):
    trained(adapted, train).zero_grad()
    adapted(batch(rows=64)[0]).square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in adapters(adapted).values())
    assert all(parameter.grad is None for parameter in adapted.parameters() if not parameter.requires_grad)


def test_outputs_are_those_of_weights_with_the_product_added(name, adapted, build, train, outputs):
    """By hand: W + scale · B A for each expert, in a model without adapters."""
    trained(adapted, train)
    by_hand = build(name).eval()
    tensors = dict(by_hand.named_parameters())
    with torch.no_grad():
        for path, part in adapted.named_modules():
            if not hasattr(part, "lora_A") or not len(part.lora_A):
                continue
            down, up = part.lora_A["default"].weight, part.lora_B["default"].weight
            path = path.removeprefix("base_model.model.").replace(".base_layer", "")
            tensor = tensors[f"{path}.{getattr(part, 'parameter_name', 'weight')}"]
            if tensor.ndim == 2:
                tensor += 2 * up @ down
            for expert in range(len(tensor) if tensor.ndim == 3 else 0):
                # Rows of A lie expert after expert, columns of B rank after rank.
                tensor[expert] += 2 * up[:, expert :: len(tensor)] @ down[2 * expert : 2 * expert + 2]
    torch.testing.assert_close(outputs(adapted), outputs(by_hand), rtol=1e-5, atol=1e-6)


def test_merged_and_unmerged_agree(name, adapted, train, outputs):
    said = outputs(trained(adapted, train))
    with adapted.disable_adapter():
        base = outputs(adapted)
    adapted.merge_adapter()
    torch.testing.assert_close(outputs(adapted), said, rtol=1e-5, atol=1e-6)
    adapted.unmerge_adapter()
    torch.testing.assert_close(outputs(adapted), said, rtol=1e-5, atol=1e-6)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(outputs(merged), said, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(said, base, atol=1e-2)
    assert not any("lora" in key or "base_layer" in key for key in merged.state_dict())


def test_what_was_merged_is_a_model_like_any(name, adapted, train, other, same):
    """It has the names of the model before, so that another one loads it."""
    merged = trained(adapted, train).merge_and_unload()
    other.eval().load_state_dict(merged.state_dict())
    same(merged, other, rtol=1e-5, atol=1e-6)


def test_saved_adapters_load_on_the_same_base(peft, name, adapted, build, train, outputs, tmp_path):
    trained(adapted, train).save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build(name).eval(), tmp_path)
    torch.testing.assert_close(outputs(loaded), outputs(adapted))
    shared = copy.deepcopy(adapted)
    torch.testing.assert_close(outputs(shared), outputs(adapted))


def wrapped(module, wrap):
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Linear):
            setattr(module, name, wrap(part))
        else:
            wrapped(part, wrap)


def test_by_walking_over_the_modules(peft, name, model, batch):
    """Every layer that such a walk finds computes by its wrapper; a stack has none to find."""
    config = peft.LoraConfig(r=2, init_lora_weights=False)
    wrapped(model.requires_grad_(False).eval(), lambda part: peft.tuners.lora.Linear(part, "default", config, r=2))
    layers = [part for part in model.modules() if isinstance(part, peft.tuners.lora.Linear)]
    assert len(layers) == {"list": 9, "stack": 1, "ffn": 5, "nested": 7}[name]
    assert not any(list(part.children()) for part in model.modules() if isinstance(part, mb.Stack))
    called = set()
    for layer in layers:
        layer.register_forward_hook(lambda layer, args, y: called.add(layer))
    model(batch(rows=64)[0]).square().sum().backward()
    assert called == set(layers)
    assert all(parameter.grad.count_nonzero() for parameter in model.parameters() if parameter.requires_grad)
