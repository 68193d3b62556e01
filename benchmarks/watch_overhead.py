"""What `mb.watch` costs: models of transformers with the hooks and without, in turn in one process.

    python benchmarks/watch_overhead.py

Every round runs a model three times: as it is, inside of `with mb.watch(model)`, and as it is once more; every second
round in reverse order. Opening and closing the block is part of the time. Ratios are taken within rounds; a figure is
their median with a 95 % bootstrap interval of the median. "control" compares the model with itself, so its interval
shows what the machine adds. Ratios of wall time are what a user waits for; those of the process's own processor time
do not depend on what else the machine does. The aim is a median below 1.05 for models of ordinary size; generation, one
token of a small model in a call, has no aim and shows the cost of a call. Outputs and gradients have to be equal to the
bit.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _compare import prepare_process, processor_name
from torch import nn

import moebius as mb
from moebius.lab.bench.timing import durations, time_in_turn

RESAMPLES = 10_000


def make_model(layers: int, experts: int, dim: int, k: int = 2) -> nn.Module:
    """A Mixtral of random weights."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=256,
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_local_experts=experts,
        num_experts_per_tok=k,
    )
    return MixtralForCausalLM(config).eval()


def make_candidates(model: nn.Module, call: Callable[[], torch.Tensor]) -> dict[str, Callable[[], torch.Tensor]]:
    """The call as it is, watched, and as it is once more."""

    def watched() -> torch.Tensor:
        with mb.watch(model) as log:
            result = call()
        assert log
        return result

    return {"plain": call, "watched": watched, "again": call}


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of the values and its 95 % bootstrap interval.

    Example:
        >>> interval_of_median([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    samples = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(samples, 1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def measure(name: str, model: nn.Module, call: Callable[[], torch.Tensor], rounds: int) -> list[dict[str, object]]:
    """The ratio of the watched call to the plain one, and that of the plain call to itself."""
    candidates = make_candidates(model, call)
    plain, watched = candidates["plain"](), candidates["watched"]()
    if not torch.equal(plain, watched):
        raise SystemExit(f"{name}: the watched outputs or gradients differ")
    calls = time_in_turn({key: with_processor_time(call) for key, call in candidates.items()}, rounds)
    clocks = {"wall": durations(calls), "processor": {key: [cpu for _, cpu in pairs] for key, pairs in calls.items()}}
    rows = []
    for figure, candidate in (("watched / plain", "watched"), ("control", "again")):
        for clock, seconds in clocks.items():
            ratios = [first / second for first, second in zip(seconds[candidate], seconds["plain"], strict=True)]
            median, low, high = interval_of_median(ratios)
            milliseconds = 1e3 * float(np.median(seconds["plain"]))
            row = {"name": name, "figure": figure, "clock": clock, "ratio": median, "low": low, "high": high}
            rows.append({**row, "plain_ms": milliseconds, "rounds": rounds})
            interval = f"{median:6.3f} ({low:.3f} … {high:.3f})"
            print(f"{name:<42} {figure:<16} {clock:<10} {interval}   plain {milliseconds:8.1f} ms", flush=True)
    return rows


def with_processor_time(call: Callable[[], torch.Tensor]) -> Callable[[], float]:
    """The call, whose value is the processor time that this process has used in it."""

    def timed() -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return timed


def forward_call(model: nn.Module, tokens: int) -> Callable[[], torch.Tensor]:
    """A forward of `tokens` tokens in sequences of 256, without gradients."""
    ids = torch.randint(256, (tokens // 256, 256), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def call() -> torch.Tensor:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits

    return call


def training_call(model: nn.Module, tokens: int) -> Callable[[], torch.Tensor]:
    """Forward and backward; the result is the sums of all gradients."""
    ids = torch.randint(256, (tokens // 256, 256), generator=torch.Generator().manual_seed(0))

    def call() -> torch.Tensor:
        model.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return torch.stack([p.grad.double().sum() for p in model.parameters() if p.grad is not None])

    return call


def generation_call(model: Any, tokens: int) -> Callable[[], torch.Tensor]:
    """Greedy generation of one sequence, a token in a call."""
    ids = torch.randint(256, (1, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)

    def call() -> torch.Tensor:
        return model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file, as a list of objects")
    parser.add_argument("--rounds", type=int, default=40, help="counted rounds")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    print(f"{processor_name()}; load at the start {os.getloadavg()[0]:.1f}; d={options.dim}, {options.tokens} tokens")
    figures = []
    for layers, experts in ((1, 8), (4, 8), (4, 64)):
        model, name = make_model(layers, experts, options.dim), f"{layers} layers, {experts} experts"
        figures += measure(f"{name}, forward", model, forward_call(model, options.tokens), options.rounds)
        if experts == 8:
            figures += measure(
                f"{name}, forward and backward", model, training_call(model, options.tokens), options.rounds
            )
    model = make_model(4, 8, options.dim)
    figures += measure(
        "4 layers, 8 experts, generation, 1 token a call", model, generation_call(model, 16), options.rounds
    )
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
