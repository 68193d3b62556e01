"""Ten convolutional experts of which one runs for an image, beside a gate and a single expert for all images.

    python benchmarks/routed_conv.py
    python benchmarks/routed_conv.py --profile     # where the time goes

The gate is a small convolutional one, the router `argmax` and `top_k` with k = 1, the images 32×32 in colour. The
target of what the mixture costs beside (one expert + gate) is 1.25 for a batch of 256 and 1.15 for one image, in
evaluation; a training step is measured for information. `--small` takes study 5's experts, in the place of study 2's:
so small that calling them costs more than they do. All in one process, in turn, medians over rounds, and the ratio
within rounds with its smallest and largest value. The allocator is tuned; `--untuned` leaves it as it comes.
"""

import os
from collections.abc import Callable

import torch
from _compare import Row, compare, header, parser, rates, show, write
from torch import Tensor, nn

import moebius as mb

EXPERTS, CLASSES, SIZE = 10, 10, 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUTERS = {"argmax": lambda: mb.routers.Argmax(), "top_k": lambda: mb.routers.TopK(1)}


class GateAndOne(nn.Module):
    """The same gate and one of the experts on all images: no routing at all."""

    def __init__(self, gate: nn.Module, expert: nn.Module):
        super().__init__()
        self.gate, self.expert = gate, expert

    def forward(self, x: Tensor) -> Tensor:
        # The gate's scores are used as little as can be.
        return self.expert(x) + self.gate(x)[:, :1]


def models(small: bool, dtype: torch.dtype) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    sizes = {"filters": (8, 16), "hidden": (32,)} if small else {}
    gate = mb.gates.Conv(3, SIZE, EXPERTS, filters=(8, 16), hidden=(32,), activation="relu")
    experts = [mb.experts.Conv(3, SIZE, CLASSES, **sizes) for _ in range(EXPERTS)]
    made: dict[str, nn.Module] = {"expert + gate": GateAndOne(gate, experts[0])}
    for name, router in ROUTERS.items():
        made[name] = mb.Mixture(gate, experts, router())
    return {name: model.to(dtype).to(memory_format=torch.channels_last) for name, model in made.items()}


def spread_out(gate: nn.Module, x: Tensor) -> None:
    """Make the gate, which chance made, send about equally many of these images to every expert."""
    with torch.no_grad():
        scores = gate(x).float()
        last = [part for part in gate.modules() if isinstance(part, nn.Linear)][-1]
        last.weight /= scores.std(0).unsqueeze(1)
        last.bias /= scores.std(0)
        last.bias -= scores.mean(0) / scores.std(0)


def evaluated(model: nn.Module, x: Tensor, calls: int) -> Callable[[], int]:
    def call() -> int:
        with torch.no_grad():
            for _ in range(calls):
                model(x)
        return calls

    return call


def trained(model: nn.Module, x: Tensor) -> Callable[[], int]:
    """Forward and backward, with the gradients set to None before."""

    def step() -> int:
        model.zero_grad()
        model(x).float().square().mean().backward()
        return 1

    return step


def measure(small: bool, dtype: str, batch: int, train: bool, rounds: int, watched: bool) -> list[Row]:
    made = models(small, DTYPES[dtype])
    x = torch.randn(max(batch, 256), 3, SIZE, SIZE, dtype=DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
    spread_out(made["top_k"].gate, x)
    x = x[:batch].contiguous(memory_format=torch.channels_last)
    name = f"{'small ' if small else ''}{dtype}, {'training' if train else 'batch'} of {batch}"
    with torch.no_grad(), mb.record(made["top_k"]) as log:
        made["top_k"](x)
    loads = log[""][0].aux["assigned"].int().tolist()
    print(f"{name}: images for each expert {loads}; {': '.join(made['top_k'].chosen(x))}")
    calls = 1 if batch > 1 else 16
    run = {one: trained(model, x) if train else evaluated(model.eval(), x, calls) for one, model in made.items()}
    times = {one: [1e3 / rate for rate in values] for one, values in rates(run, rounds).items()}
    if watched:
        for one in ("top_k", "expert + gate"):
            with torch.profiler.profile() as watch:
                run[one]()
            print(one, watch.key_averages().table(sort_by="self_cpu_time_total", row_limit=14), sep="\n")
    pairs = [(router, "expert + gate") for router in ROUTERS]
    return compare(times, pairs, "ms", f"{name}, ")


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=9, help="counted rounds; ten times as many for one image")
    arguments.add_argument("--batch", type=int, action="append", help="images in a call; default: 256 and 1")
    arguments.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    arguments.add_argument("--small", action="store_true", help="study 5's experts, filters 8 and 16")
    arguments.add_argument("--no-training", action="store_true", help="evaluation alone")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    arguments.add_argument("--untuned", action="store_true", help="leave the allocator as it comes")
    arguments.add_argument("--profile", action="store_true", help="also say where the time goes")
    options = arguments.parse_args()
    header(options.threads, options.untuned)
    figures = []
    for dtype in options.dtype or DTYPES:
        for batch in options.batch or (256, 1):
            rounds = options.rounds * (10 if batch == 1 else 1)
            figures += measure(options.small, dtype, batch, False, rounds, options.profile)
        if not options.no_training:
            batch = max(options.batch or [256])
            figures += measure(options.small, dtype, batch, True, options.rounds, options.profile)
    show(figures)
    write(figures, options.json)


if __name__ == "__main__":
    main()
