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
