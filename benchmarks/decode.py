"""One row at a time, as in decoding: `mb.layers.SparseFFN` compared with direct calls of its k experts.

    python benchmarks/decode.py
    python benchmarks/decode.py --profile      # where the time of one row goes

"by hand" calls the `FFN`s of the k experts and adds up their outputs; it receives the experts and their weights. The
target, a ratio of 1.3, compares with it. "hand + gate" also scores the row, selects the k best experts, and computes
their weights. "packed" is the layer after `prepare_inference`. Every call is for another row, so that the weights come
from memory, as they do in decoding. The candidates run in turn in one process; figures are medians over rounds, and
ratios are taken within rounds and shown with their smallest and largest value. The allocator is tuned; `--untuned` does
not tune it.
"""

import copy
import cProfile
import os
import pstats
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
from torch import Tensor

import moebius as mb

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_candidates(layer: mb.layers.SparseFFN, rows: list[Tensor]) -> dict[str, Callable[[], int]]:
    """Calls that compute the layer's outputs for the rows, one after another, and return their number."""
    # Experts on their own: a mixture checks at every call those that were taken out of its stack.
    gate, k, experts = layer.mixture.gate, layer.k, list(layer.mixture.experts.unstacked())

    def route(x: Tensor) -> tuple[list[int], list[Tensor]]:
        best = gate(x)[0].topk(k)
        return best.indices.tolist(), list(best.values.softmax(0).unbind())

    routings = [route(x) for x in rows]

    def combine(x: Tensor, indices: list[int], weights: list[Tensor]) -> Tensor:
        y = weights[0] * experts[indices[0]](x)
        for expert, weight in zip(indices[1:], weights[1:], strict=True):
            y = y + weight * experts[expert](x)
        return y

    for x, (indices, weights) in zip(rows, routings, strict=True):
        # Times are comparable only where the outputs are the same.
        torch.testing.assert_close(layer(x), combine(x, indices, weights), rtol=2e-2, atol=2e-2)

    def run_layer() -> int:
        for x in rows:
            layer(x)
        return len(rows)

    def run_experts() -> int:
        for x, (indices, weights) in zip(rows, routings, strict=True):
            combine(x, indices, weights)
        return len(rows)

    def run_gate_and_experts() -> int:
        for x in rows:
            combine(x, *route(x))
        return len(rows)

    packed = copy.deepcopy(layer).prepare_inference()

    def run_packed() -> int:
        for x in rows:
            packed(x)
        return len(rows)

    return {"moebius": run_layer, "packed": run_packed, "by hand": run_experts, "hand + gate": run_gate_and_experts}


@torch.no_grad()
def measure(layer: mb.layers.SparseFFN, rows: list[Tensor], rounds: int, name: str) -> list[Measurement]:
    """Milliseconds a row of all candidates, and their ratios."""
    pairs = [(ours, hand) for ours in ("moebius", "packed") for hand in ("by hand", "hand + gate")]
    pairs.append(("hand + gate", "by hand"))
    rates = measure_rates(make_candidates(layer, rows), rounds)
    # In milliseconds a row, a ratio above 1 means that the layer takes longer.
    times = {candidate: [1e3 / rate for rate in values] for candidate, values in rates.items()}
    return comparison_rows(times, pairs, "ms", f"{name}, ")


@torch.no_grad()
def print_profile(layer: mb.layers.SparseFFN, rows: list[Tensor]) -> None:
    """Print the time inside each Python function, and that inside each operator of torch."""
    python_profile = cProfile.Profile()
    with python_profile:
        for x in rows:
            layer(x)
    pstats.Stats(python_profile).strip_dirs().sort_stats("tottime").print_stats(20)
    with torch.profiler.profile() as torch_profile:
        for x in rows:
            layer(x)
    print(torch_profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=80, help="counted rounds")
    parser.add_argument("--rows", type=int, default=8, help="rows, one after another, in a round")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--k", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    figures = []
    for dtype in options.dtype or DTYPES:
        torch.manual_seed(0)
        layer = mb.layers.SparseFFN(options.dim, options.hidden, options.experts, options.k).to(DTYPES[dtype]).eval()
        rows = list(torch.randn(options.rows, 1, options.dim, dtype=DTYPES[dtype]).unbind())
        with torch.no_grad():
            print(f"{dtype}, E={options.experts}, k={options.k}: {': '.join(layer.mixture.chosen(rows[0]))}")
        figures += measure(layer, rows, options.rounds, dtype)
        if options.profile:
            print_profile(layer, rows)
    print_rows(figures)
    write_rows(figures, options.json)


if __name__ == "__main__":
    main()
