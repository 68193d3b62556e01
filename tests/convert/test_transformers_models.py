"""Models of transformers whose mixtures are converted, or computed by the implementation "moebius": all still works."""

import copy

import pytest
import torch
from torch import nn

import moebius as mb

FAMILIES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "glm4_moe"]
WAYS = ["converted", "implementation"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=WAYS)
def ours(request, convert_model):
    """Makes a copy of a model that is computed here, in one of both ways."""

    def compute_here(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model)
        if request.param == "converted":
            return convert_model(model)
        model.set_experts_implementation(mb.integrations.transformers.register())
        return model

    return compute_here


@pytest.fixture
def batch():
    """Three sequences of seven tokens, of which the first two begin with padding."""
    ids = torch.randint(1, 32, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) >= torch.tensor([[2], [1], [0]])
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_tokens_are_generated_also_with_padding_on_the_left(family, build, ours, batch):
    model = build(family)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(**batch, **options)
    assert torch.equal(ours(model).generate(**batch, **options), tokens)
    # Padding changes nothing: the second sequence alone, without its padding.
    alone = ours(model).generate(batch["input_ids"][1:2, 1:], **options)
    assert torch.equal(alone[:, 6:], tokens[1:2, 7:])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_trains_as_it_did(family, build, ours, batch):
    losses = []
    for model in (original := build(family), ours(original)):
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
        for _ in range(3):
            loss = model(**batch, labels=batch["input_ids"]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[2] < losses[0]
    torch.testing.assert_close(losses[3:], losses[:3], **CLOSE)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_gradient_checkpointing_changes_no_gradient(family, reentrant, build, ours, batch):
    model, gradients = ours(build(family)).train(), []
    for checkpoints in (False, True):
        if checkpoints:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert model.is_activation_checkpointing
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_model_is_saved_and_loaded_by_transformers(family, build, blocks, convert_model, batch, tmp_path):
    original = build(family)
    model = convert_model(copy.deepcopy(original)).train()
    model(**batch, labels=batch["input_ids"]).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    logits = model.eval()(**batch).logits
    for name, block in blocks(original).items():
        model.set_submodule(name, mb.convert.to_transformers(model.get_submodule(name), like=block))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, experts_implementation="eager")
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(loaded(**batch).logits, logits, **CLOSE)
    assert not torch.equal(loaded(**batch).logits, original(**batch).logits)


def test_a_block_that_was_put_back_follows_the_models_setting(build, blocks, convert_model, batch):
    original = build("mixtral")
    model = convert_model(copy.deepcopy(original))
    again = copy.deepcopy(original)
    for name, block in blocks(again).items():
        again.set_submodule(name, mb.convert.to_transformers(model.get_submodule(name), like=block))
    again.set_experts_implementation(mb.integrations.transformers.register())
    for block in blocks(again).values():
        assert block.experts.config._experts_implementation == "moebius"
    torch.testing.assert_close(again(**batch).logits, original(**batch).logits, **CLOSE)


def test_an_optimizer_that_was_made_before_trains_the_converted_layers(build, convert_model, batch):
    model = build("olmoe")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.model.layers[0].mlp.experts.gate_up_proj.detach().clone()
    convert_model(model)(**batch, labels=batch["input_ids"]).loss.backward()
    optimizer.step()
    assert not torch.equal(model.model.layers[0].mlp.mixture.experts.inner_weight, before)


def test_routings_of_converted_layers_are_recorded(build, convert_model, batch):
    model = convert_model(build("deepseek_v3"))
    with mb.record(model) as log:
        model(**batch)
    assert {name: len(routings) for name, routings in log.items()} == {"model.layers.1.mlp.layer": 1}
    assert log["model.layers.1.mlp.layer"][0].experts == 8
