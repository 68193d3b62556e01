"""transformers' PreTrainedModel around the models: initialised, saved and loaded."""

import pytest
import torch
from torch import nn

import moebius as mb


@pytest.fixture
def pretrained(transformers, build):
    class Config(transformers.PretrainedConfig):
        model_type = "moebius-interop"

        def __init__(self, name: str = "list", seed: int = 0, **options):
            super().__init__(**options)
            self.name, self.seed = name, seed

    class Model(transformers.PreTrainedModel):
        config_class = Config
        # Where the router has a bias: it moves by less than bfloat16 has digits for.
        _keep_in_fp32_modules_strict = ("router.bias",)

        def __init__(self, config):
            super().__init__(config)
            self.network = build(config.name, config.seed)
            self.post_init()

        def _init_weights(self, module):
            # transformers goes from a module to its children, and a stack has none.
            for expert in module if isinstance(module, mb.Stack) else ():
                expert.apply(self._init_weights)
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.weight, 0.25)
                nn.init.zeros_(module.bias) if module.bias is not None else None

        def forward(self, x):
            return self.network(x)

    return lambda name, seed=0: Model(Config(name, seed)), Model


def test_initial_weights_reach_every_linear_layer(pretrained, name, build):
    make, _ = pretrained
    layers = [part for part in unstacked(make(name).network) if isinstance(part, nn.Linear)]
    assert len(layers) == len([part for part in unstacked(build(name)) if isinstance(part, nn.Linear)]) > 4
    assert all((layer.weight == 0.25).all() for layer in layers)
    assert all((layer.bias == 0).all() for layer in layers if layer.bias is not None)


def unstacked(model: nn.Module) -> list[nn.Module]:
    """All parts of a model, those of a stack's experts too."""
    stacks = [part for part in model.modules() if isinstance(part, mb.Stack)]
    return [*model.modules(), *(part for stack in stacks for expert in stack for part in expert.modules())]


@pytest.mark.parametrize("size", ["1GB", "1KB"])
def test_a_folder_saved_is_the_model_loaded(pretrained, name, train, build, same, size, tmp_path):
    make, kind = pretrained
    model = make(name)
    model.network.load_state_dict(build(name).state_dict())
    train(model)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "1KB")
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    same(model.eval(), loaded)
    # State that a file does not hold is as new, though the model was made without memory.
    train(model.train(), first=3)
    train(loaded.train(), first=3)
    same(model, loaded)


def test_loaded_in_bfloat16_the_router_keeps_its_bias(pretrained, name, train, tmp_path, batch):
    make, kind = pretrained
    model = make(name)
    train(model)
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in loaded.buffers()} <= {torch.float32}
    x = batch()[0].bfloat16()
    torch.testing.assert_close(loaded(x), model.eval().bfloat16()(x))


def tiny_bert(transformers, labels, seed):
    """A randomly initialised encoder that classifies tokens."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=labels, **sizes)
    return transformers.BertForTokenClassification(config)


class MaskedTokens(nn.Module):
    """An encoder that leaves out what its attention mask says is padding."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, ids, context):
        return self.encoder(ids, attention_mask=context["attention_mask"]).logits


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1)])
def test_a_gate_for_each_token_trains_over_frozen_encoders(transformers, router):
    """Each token is classified by encoders that see the whole sequence; what is padding changes nothing."""
    experts = [MaskedTokens(tiny_bert(transformers, 3, seed)).requires_grad_(False).eval() for seed in range(3)]
    gate = MaskedTokens(tiny_bert(transformers, 3, 3))
    moe = mb.layers.PositionMixture(gate, experts, router, mb.LogMixture())
    ids = torch.randint(1, 20, (16, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(8) < torch.randint(3, 9, (16, 1), generator=torch.Generator().manual_seed(1))
    side = {"attention_mask": mask.long()}
    for expert in experts:
        nn.init.normal_(expert.encoder.classifier.weight)
    with torch.no_grad():  # what a gate can learn: which expert is right
        target = experts[0](ids, side).argmax(-1)
    optimizer, losses = torch.optim.Adam(gate.parameters(), lr=3e-3), []
    for _ in range(30):
        log_probs = moe(ids, side, mask)
        assert not log_probs[~mask].any()
        loss = nn.functional.nll_loss(log_probs[mask], target[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], (losses[0], losses[-1])
    with mb.record(moe.eval()) as log:
        y = moe(ids, side, mask)
    assert len(log[""][0].weights) == mask.sum()
    torch.testing.assert_close(moe(torch.where(mask, ids, 7), side, mask), y)
    assert all(parameter.grad is None for parameter in moe.experts.parameters())


def test_a_gate_for_each_patch_of_a_vision_encoder(transformers):
    """Images in, a class for each patch out: every expert is a vision transformer that sees the whole image."""

    class Patches(nn.Module):
        def __init__(self, outputs, seed):
            super().__init__()
            torch.manual_seed(seed)
            sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            config = transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, **sizes)
            self.encoder, self.head = transformers.ViTModel(config, add_pooling_layer=False), nn.Linear(16, outputs)

        def forward(self, x):
            return self.head(self.encoder(x).last_hidden_state[:, 1:]).unflatten(1, (4, 4))

    experts = [mb.experts.Adapter(Patches(2, seed), frozen=True) for seed in range(2)]
    for expert in experts:
        nn.init.normal_(expert.network.head.weight)
    moe = mb.layers.PositionMixture(Patches(2, 2), experts, combine=mb.LogMixture())
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # an expert is right on the upper patches, the other on the lower ones
        upper, lower = (expert(x).argmax(-1) for expert in experts)
        target = torch.where(torch.arange(4).view(4, 1) < 2, upper, lower)
    optimizer, losses = torch.optim.Adam(moe.gate.parameters(), lr=3e-3), []
    for _ in range(30):
        loss = nn.functional.nll_loss(moe(x).flatten(0, 2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], (losses[0], losses[-1])
