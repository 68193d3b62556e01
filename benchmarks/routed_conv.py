"""Ten convolutional experts, one of which runs for an image, compared with a gate and a single expert for all images.

    python benchmarks/routed_conv.py
    python benchmarks/routed_conv.py --profile     # where the time goes

The gate is a small convolutional network, the router `argmax` or `top_k` with k = 1, the images have 32×32 pixels in
colour. The target for the ratio of the mixture's time to that of (one expert + gate) is 1.25 for a batch of 256 and
1.15 for one image, in evaluation; a training step is measured for information. `--small` uses study 5's experts instead
of study 2's: they are so small that calling them takes longer than their work. The candidates run in turn in one
process; figures are medians over rounds, and ratios are taken within rounds and shown with their smallest and largest
value. The allocator is tuned; `--untuned` does not tune it.
"""

import os
from collections.abc import Callable

import torch
from _compare import (
    Measurement,
    comparison_rows,
    make_parser,
    measure_rates,
    prepare_process,
    print_rows,
    write_rows,
)
from torch import Tensor, nn

import moebius as mb

EXPERTS, CLASSES, SIZE = 10, 10, 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUTERS = {"argmax": lambda: mb.routers.Argmax(), "top_k": lambda: mb.routers.TopK(1)}


class GateAndOne(nn.Module):
    """The same gate and one of the experts on all images, without routing."""

    def __init__(self, gate: nn.Module, expert: nn.Module):
        super().__init__()
        self.gate, self.expert = gate, expert

    def forward(self, x: Tensor) -> Tensor:
        # Adding a score keeps the gate's work, at the least cost.
        return self.expert(x) + self.gate(x)[:, :1]


def make_models(small: bool, dtype: torch.dtype) -> dict[str, nn.Module]:
    """The mixture with each router, and the gate with a single expert; all share gate and experts."""
    torch.manual_seed(0)
    sizes = {"filters": (8, 16), "hidden": (32,)} if small else {}
    gate = mb.gates.Conv(3, SIZE, EXPERTS, filters=(8, 16), hidden=(32,), activation="relu")
    experts = [mb.experts.Conv(3, SIZE, CLASSES, **sizes) for _ in range(EXPERTS)]
    models: dict[str, nn.Module] = {"expert + gate": GateAndOne(gate, experts[0])}
    for name, router in ROUTERS.items():
        models[name] = mb.Mixture(gate, experts, router())
    return {name: model.to(dtype).to(memory_format=torch.channels_last) for name, model in models.items()}


def balance_gate(gate: nn.Module, x: Tensor) -> None:
    """Change the last layer of the random gate, so that about equally many images go to every expert."""
    with torch.no_grad():
        scores = gate(x).float()
        last = [module for module in gate.modules() if isinstance(module, nn.Linear)][-1]
        last.weight /= scores.std(0).unsqueeze(1)
        last.bias /= scores.std(0)
        last.bias -= scores.mean(0) / scores.std(0)


def evaluation_call(model: nn.Module, x: Tensor, calls: int) -> Callable[[], int]:
    """A function that runs the model on `x` without gradients, `calls` times."""

    def call() -> int:
        with torch.no_grad():
            for _ in range(calls):
                model(x)
        return calls

    return call


def training_call(model: nn.Module, x: Tensor) -> Callable[[], int]:
    """A function that sets the gradients to None, then runs the model forward and backward."""

    def step() -> int:
        model.zero_grad()
        model(x).float().square().mean().backward()
        return 1

    return step


def measure(small: bool, dtype: str, batch: int, train: bool, rounds: int, profiled: bool) -> list[Measurement]:
    """Milliseconds a call of all candidates, and their ratios."""
    models = make_models(small, DTYPES[dtype])
    x = torch.randn(max(batch, 256), 3, SIZE, SIZE, dtype=DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
    balance_gate(models["top_k"].gate, x)
    x = x[:batch].contiguous(memory_format=torch.channels_last)
    name = f"{'small ' if small else ''}{dtype}, {'training' if train else 'batch'} of {batch}"
    with torch.no_grad(), mb.record(models["top_k"]) as log:
        models["top_k"](x)
    load_E = log[""][0].aux["assigned"].int().tolist()
    print(f"{name}: images for each expert {load_E}; {': '.join(models['top_k'].chosen(x))}")
    calls = 1 if batch > 1 else 16
    candidates = {
        candidate: training_call(model, x) if train else evaluation_call(model.eval(), x, calls)
        for candidate, model in models.items()
    }
    rates = measure_rates(candidates, rounds)
    times = {candidate: [1e3 / rate for rate in values] for candidate, values in rates.items()}
    if profiled:
        for candidate in ("top_k", "expert + gate"):
            with torch.profiler.profile() as profile:
                candidates[candidate]()
            print(candidate, profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=14), sep="\n")
    pairs = [(router, "expert + gate") for router in ROUTERS]
    return comparison_rows(times, pairs, "ms", f"{name}, ")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds; ten times as many for one image")
    parser.add_argument("--batch", type=int, action="append", help="images in a call; default: 256 and 1")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    parser.add_argument("--small", action="store_true", help="study 5's experts, filters 8 and 16")
    parser.add_argument("--no-training", action="store_true", help="evaluation alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    figures = []
    for dtype in options.dtype or DTYPES:
        for batch in options.batch or (256, 1):
            rounds = options.rounds * (10 if batch == 1 else 1)
            figures += measure(options.small, dtype, batch, False, rounds, options.profile)
        if not options.no_training:
            batch = max(options.batch or [256])
            figures += measure(options.small, dtype, batch, True, options.rounds, options.profile)
    print_rows(figures)
    write_rows(figures, options.json)


if __name__ == "__main__":
    main()
