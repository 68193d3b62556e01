"""Training steps per second: moebius, a hand-written PyTorch loop of the same model, and Keras 3 on TensorFlow.

    pip install -e '.[bench]'
    python benchmarks/steps.py

The models are study 1's with a linear gate (fp32) and study 2's with a dense gate (fp32, and bf16 in PyTorch), with
batches of 128 random grey images of 32×32 pixels. The candidates run in turn in one process, so that changes in the
machine's speed affect all of them; figures are medians over rounds, and ratios are taken within rounds and shown with
their smallest and largest value. "moebius" is the loop of `moebius run`, with its metrics and its checks. The allocator
is tuned for the whole process, TensorFlow included; `--untuned` does not tune it.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import torch
from _compare import Measurement, comparison_rows, make_parser, measure_rates, prepare_process, print_rows, write_rows
from torch import nn
from torch.nn import functional as F

from moebius.lab.data.split import Dataset, Split
from moebius.lab.model.build import build_model
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop
from moebius.lab.training.settings import Settings

BATCH = 128
STUDY_1 = {
    "gate": {"kind": "linear"},
    "experts": {"kind": "linear", "count": 2},
    "combine": {"kind": "log_mixture"},
}
STUDY_2 = {"gate": {"kind": "mlp", "hidden": [64]}, "experts": {"kind": "conv", "count": 2}}


def random_data(rows: int) -> Dataset:
    """Random images of 20 classes in two domains."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 1, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 20, (rows,), generator=generator)
    split = Split(images, labels, labels // 10)
    return Dataset(split, None, split.take(torch.arange(2)), tuple(map(str, range(20))), ("a", "b"), "random")


def moebius_epoch(model: dict, data: Dataset, precision: str) -> Callable[[], int]:
    """A function that trains an epoch with the loop of `moebius run`, and returns the number of steps."""
    plain = {"epochs": 1, "batch_size": BATCH, "optimizer": {"kind": "adam", "lr": 1e-3}, "precision": precision}
    folder = Path(tempfile.mkdtemp())
    member = Member(lambda: build_model(model, data.facts), Settings.model_validate(plain), 0, folder)
    loop = Loop([member], data, folder / "checkpoint.safetensors")

    def epoch() -> int:
        loop.records[0].progress.batch = 0
        loop.train_epoch()
        return loop.steps_per_epoch

    return epoch


class HandWritten(nn.Module):
    """A mixture written in plain PyTorch."""

    def __init__(self, gate: nn.Module, experts: list[nn.Module], mixes_logits: bool):
        super().__init__()
        self.gate, self.experts, self.mixes_logits = gate, nn.ModuleList(experts), mixes_logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        if self.mixes_logits:
            return (self.gate(x).softmax(-1).unsqueeze(-1) * outputs).sum(1).log_softmax(-1)
        return torch.logsumexp(self.gate(x).log_softmax(-1).unsqueeze(-1) + outputs.log_softmax(-1), 1)


def make_linear_by_hand() -> HandWritten:
    experts: list[nn.Module] = [nn.Sequential(nn.Flatten(), nn.Linear(1024, 20)) for _ in range(2)]
    return HandWritten(nn.Sequential(nn.Flatten(), nn.Linear(1024, 2)), experts, mixes_logits=False)


def make_conv_by_hand() -> HandWritten:
    experts: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(1, 128, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8192, 128),
            nn.ReLU(),
            nn.Linear(128, 20),
        )
        for _ in range(2)
    ]
    gate = nn.Sequential(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 2))
    return HandWritten(gate, experts, mixes_logits=True)


def plain_epoch(model: HandWritten, data: Dataset, precision: str = "fp32") -> Callable[[], int]:
    """A function that trains an epoch with a plain PyTorch loop: shuffled batches, Adam, accuracy and loss."""
    x, y = data.train.images.float() / 255, data.train.labels
    optimizer = torch.optim.Adam(model.parameters())

    def epoch() -> int:
        correct, total, steps = 0, 0.0, 0
        for index in torch.randperm(len(x)).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                output = model(x[index])
            loss = F.nll_loss(output.float(), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += (output.argmax(-1) == y[index]).sum().item()
            total += loss.item()
            steps += 1
        return steps

    return epoch


def keras_epoch(study: int, data: Dataset) -> Callable[[], int] | None:
    """A function that trains an epoch with Keras' `fit`; None where Keras or TensorFlow is missing."""
    try:
        import keras
        import tensorflow  # noqa: F401 - Keras imports its backend itself; this import fails where it cannot
    except ImportError:
        return None
    layers = keras.layers
    inputs = layers.Input((32, 32, 1))
    flat = layers.Flatten()(inputs)
    if study == 1:
        gate = layers.Dense(2, activation="softmax")(flat)
        outputs = [layers.Dense(20, activation="softmax")(flat) for _ in range(2)]
    else:
        gate = layers.Dense(2, activation="softmax")(layers.Dense(64, activation="relu")(flat))
        outputs = []
        for _ in range(2):
            hidden = inputs
            for _ in range(2):
                hidden = layers.Conv2D(128, 3, padding="same", activation="relu")(hidden)
                hidden = layers.MaxPooling2D(2)(hidden)
            hidden = layers.Dense(128, activation="relu")(layers.Flatten()(hidden))
            outputs.append(layers.Dense(20)(hidden))
    mixed = layers.Dot(1)([gate, layers.Concatenate(1)([layers.Reshape((1, 20))(output) for output in outputs])])
    if study == 2:
        mixed = layers.Softmax()(mixed)
    model = keras.Model(inputs, mixed)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = (data.train.images.permute(0, 2, 3, 1).numpy() / 255).astype(np.float32)
    y = data.train.labels.numpy()

    def epoch() -> int:
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        return -(-len(x) // BATCH)

    return epoch


def measure(study: int, steps: int, rounds: int) -> list[Measurement]:
    """Steps a second of all candidates for the model of one study."""
    data = random_data(BATCH * steps)
    spec, make_model = (STUDY_1, make_linear_by_hand) if study == 1 else (STUDY_2, make_conv_by_hand)
    candidates = {"moebius": moebius_epoch(spec, data, "fp32"), "by hand": plain_epoch(make_model(), data)}
    if study == 2:
        candidates["moebius bf16"] = moebius_epoch(spec, data, "bf16")
        candidates["by hand bf16"] = plain_epoch(make_model(), data, "bf16")
    epoch = keras_epoch(study, data)
    if epoch is None:
        print("Keras on TensorFlow is not installed: pip install -e '.[bench]'")
    else:
        candidates["keras"] = epoch
    pairs = [("moebius", "by hand"), ("moebius", "keras"), ("moebius bf16", "by hand bf16"), ("moebius bf16", "keras")]
    return comparison_rows(measure_rates(candidates, rounds), pairs, "steps/s", f"study {study}, ")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    parser.add_argument("--study", type=int, choices=(1, 2), action="append", help="measure this study only")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    rows = []
    for study in options.study or (1, 2):
        rows += measure(study, 430 if study == 1 else 8, options.rounds)
    print_rows(rows)
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
