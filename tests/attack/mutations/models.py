"""Folders of saved mixtures with other descriptions, other tensors and changed bytes."""

import json
import random
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import moebius as mb
from mutations.trials import Entry
from mutations.values import swap_bytes, swap_value


def make_models() -> list[torch.nn.Module]:
    """Mixtures of many kinds of parts."""
    linear = [mb.experts.Linear(6, 3) for _ in range(3)]
    inner = mb.Mixture(mb.gates.MLP(6, 3, hidden=(4,)), linear)
    adapter = mb.experts.Adapter(linear[0], classes=(0, 1, 2), total=5)
    table = mb.experts.Table(features=6, classes=5, cardinalities=(4, 5), hidden=(4,))
    return [
        mb.Mixture(mb.gates.Linear(6, 3), mb.Stack(linear), mb.routers.TopK(2), mb.LogMixture()),
        mb.Mixture(mb.gates.Linear(6, 6), linear, mb.routers.Heads(mb.routers.TopK(1), heads=2), mb.HeadMaximum()),
        mb.Mixture(mb.gates.Linear(6, 2), [mb.experts.MLP(6, 3, hidden=(4,)), inner]),
        mb.layers.SparseFFN(6, 8, experts=4, k=2, shared=1),
        mb.Mixture(mb.gates.Conv(1, 8, 2, filters=(2,), hidden=(4,)), [adapter, table], mb.routers.Switch()),
    ]


def swap_safetensors(path: Path, draw: random.Random) -> str:
    """Other values in the texts of a file, and other tensors; without its digest."""
    with safe_open(path, "pt") as file:
        texts = dict(file.metadata() or {})
    tensors = load_file(path)
    change = "no seal"
    for name, text in texts.items():
        if text.startswith("{"):
            value = json.loads(text)
            value.pop("digest", None)
            change = swap_value(value, draw) if value else change
            texts[name] = json.dumps(value)
    texts.pop("digest", None)
    if draw.random() < 0.3:
        name = draw.choice(sorted(tensors))
        change += f", {name} changed"
        tensor = tensors.pop(name)
        if draw.random() < 0.7:
            tensors[name] = draw.choice([tensor.flatten()[:0], tensor.flatten(), tensor.bool(), tensor.double()])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)
    return change


class Models(Entry):
    """What `mb.load` is given."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.path = folder / "model"
        self.whole = []
        for number, model in enumerate(make_models()):
            self.whole.append(folder / f"whole-{number}")
            mb.save(model, self.whole[-1])

    def mutate(self, draw: random.Random) -> str:
        """Change the description, a tensor, or bytes."""
        shutil.rmtree(self.path, ignore_errors=True)
        number = draw.randrange(len(self.whole))
        shutil.copytree(self.whole[number], self.path)
        file = self.path / "model.safetensors"
        if draw.random() < 0.8:
            return f"model {number}: {swap_safetensors(file, draw)}"
        content, change = swap_bytes(file.read_bytes(), draw)
        file.write_bytes(content)
        return f"model {number}: {change}"

    def call(self) -> None:
        """Load it."""
        mb.load(self.path)
