"""huggingface_hub's PyTorchModelHubMixin: a folder that is saved is the model that is loaded."""

import pytest
from huggingface_hub import PyTorchModelHubMixin
from torch import nn


@pytest.fixture
def hub(build):
    class Hub(nn.Module, PyTorchModelHubMixin):
        def __init__(self, name: str, seed: int = 0):
            super().__init__()
            self.network = build(name, seed)

        def forward(self, x):
            return self.network(x)

    return Hub


@pytest.mark.parametrize("strict", [False, True])
def test_a_folder_saved_is_the_model_loaded(hub, name, train, same, strict, tmp_path):
    model = hub(name)
    train(model)
    model.save_pretrained(tmp_path)
    loaded = hub.from_pretrained(tmp_path, strict=strict, seed=1)
    assert type(loaded.network) is type(model.network)
    same(model.eval(), loaded)
