"""Training steps per second: moebius, a hand-written PyTorch loop of the same model, and Keras 3 on TensorFlow and JAX.

    pip install -e '.[bench]' jax
    python benchmarks/steps.py [--compiled]

The models are study 1's with a linear gate (fp32) and study 2's with a dense gate (fp32, and bf16 in PyTorch), with
batches of 128 random grey images of 32×32 pixels. The candidates run in turn, so that changes in the machine's speed
affect all of them; figures are medians over rounds, and ratios are taken within rounds and shown with their smallest
and largest value. What is PyTorch runs in one process. Keras takes its backend when it is imported, so each backend has
a process of its own, which waits without computing until it is asked for its next epoch: no candidate shares threads or
memory with TensorFlow or JAX. "moebius" is the loop of `moebius run`, with its metrics and its checks. The allocator
is tuned in all processes; `--untuned` does not tune it.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from _compare import Measurement, comparison_rows, make_parser, measure_rates, prepare_process, print_rows, write_rows
from _steps_keras import BACKENDS, KerasProcess, missing_backend
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


def measure(study: int, steps: int, options: argparse.Namespace) -> list[Measurement]:
    """Steps a second of all candidates for the model of one study."""
    data = random_data(BATCH * steps)
    spec, make_model = (STUDY_1, make_linear_by_hand) if study == 1 else (STUDY_2, make_conv_by_hand)
    candidates = {"moebius": moebius_epoch(spec, data, "fp32"), "by hand": plain_epoch(make_model(), data)}
    if options.compiled:
        compiled = make_model()
        compiled.compile(dynamic=False)
        candidates["by hand, compiled"] = plain_epoch(compiled, data)
    if study == 2:
        candidates["moebius bf16"] = moebius_epoch(spec, data, "bf16")
        candidates["by hand bf16"] = plain_epoch(make_model(), data, "bf16")
    processes = {}
    for backend in options.keras or BACKENDS:
        if missing_backend(backend):
            print(f"Keras on {backend} is not installed: pip install -e '.[bench]'")
        else:
            processes[f"keras, {backend}"] = KerasProcess(backend, study, steps, options.untuned)
    candidates |= {name: process.epoch for name, process in processes.items()}
    try:
        rates = measure_rates(candidates, options.rounds)
    finally:
        for process in processes.values():
            process.close()
    pairs = [("moebius", name) for name in candidates if name.startswith(("by hand", "keras")) and "bf16" not in name]
    pairs += [("moebius bf16", name) for name in ("by hand bf16", *processes) if study == 2]
    return comparison_rows(rates, pairs, "steps/s", f"study {study}, ")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    parser.add_argument("--compiled", action="store_true", help="also the hand-written model under torch.compile")
    parser.add_argument("--keras", choices=BACKENDS, action="append", help="Keras on this backend only")
    parser.add_argument("--steps", type=int, help="steps of an epoch, default 430 and 8")
    parser.add_argument("--study", type=int, choices=(1, 2), action="append", help="measure this study only")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    rows = []
    for study in options.study or (1, 2):
        rows += measure(study, options.steps or (430 if study == 1 else 8), options)
    print_rows(rows)
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
