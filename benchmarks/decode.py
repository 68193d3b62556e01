"""One row at a time, as in decoding: `mb.layers.SparseFFN` beside its k experts called by hand.

    python benchmarks/decode.py
    python benchmarks/decode.py --profile      # where the time of one row goes

By hand means: which experts, and with which weights, is known; their `FFN`s are called and added up. That is what the
target of 1.3 is a ratio to. "hand + gate" also scores the row, takes the k best, and makes their weights. Every call is
for another row, so that the weights come from memory as they do in decoding. All in one process, in turn, medians over
rounds, and the ratio within rounds with its smallest and largest value. The allocator is tuned; `--untuned` leaves it
as it comes.
"""

import cProfile
import os
import pstats
from collections.abc import Callable

import torch
from _compare import Row, compare, header, parser, rates, show, write
from torch import Tensor

import moebius as mb

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def candidates(layer: mb.layers.SparseFFN, rows: list[Tensor]) -> dict[str, Callable[[], int]]:
    """Ways through the layer for each of these rows."""
    gate, k, experts = layer.mixture.gate, layer.k, list(layer.mixture.experts)

    def routed(x: Tensor) -> tuple[list[int], list[Tensor]]:
        best = gate(x)[0].topk(k)
        return best.indices.tolist(), list(best.values.softmax(0).unbind())

    known = [routed(x) for x in rows]

    def added(x: Tensor, chosen: list[int], weights: list[Tensor]) -> Tensor:
        y = weights[0] * experts[chosen[0]](x)
        for expert, weight in zip(chosen[1:], weights[1:], strict=True):
            y = y + weight * experts[expert](x)
        return y

    for x, (chosen, weights) in zip(rows, known, strict=True):
        # Otherwise times of different things would be compared.
        torch.testing.assert_close(layer(x), added(x, chosen, weights), rtol=2e-2, atol=2e-2)

    def ours() -> int:
        for x in rows:
            layer(x)
        return len(rows)

    def by_hand() -> int:
        for x, (chosen, weights) in zip(rows, known, strict=True):
            added(x, chosen, weights)
        return len(rows)

    def hand_and_gate() -> int:
        for x in rows:
            added(x, *routed(x))
        return len(rows)

    return {"moebius": ours, "by hand": by_hand, "hand + gate": hand_and_gate}


@torch.no_grad()
def measure(layer: mb.layers.SparseFFN, rows: list[Tensor], rounds: int, name: str) -> list[Row]:
    pairs = [("moebius", "by hand"), ("moebius", "hand + gate"), ("hand + gate", "by hand")]
    measured = rates(candidates(layer, rows), rounds)
    # Milliseconds a row read better than rows a second, and a ratio above 1 is then what ours costs more.
    times = {candidate: [1e3 / rate for rate in values] for candidate, values in measured.items()}
    return compare(times, pairs, "ms", f"{name}, ")


@torch.no_grad()
def profile(layer: mb.layers.SparseFFN, rows: list[Tensor]) -> None:
    """Python functions by their own time, and torch's operators by theirs."""
    watch = cProfile.Profile()
    with watch:
        for x in rows:
            layer(x)
    pstats.Stats(watch).strip_dirs().sort_stats("tottime").print_stats(20)
    with torch.profiler.profile() as watched:
        for x in rows:
            layer(x)
    print(watched.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=80, help="counted rounds")
    arguments.add_argument("--rows", type=int, default=8, help="rows, one after another, in a round")
    arguments.add_argument("--dim", type=int, default=512)
    arguments.add_argument("--hidden", type=int, default=2048)
    arguments.add_argument("--experts", type=int, default=64)
    arguments.add_argument("--k", type=int, default=2)
    arguments.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    arguments.add_argument("--untuned", action="store_true", help="leave the allocator as it comes")
    arguments.add_argument("--profile", action="store_true", help="also say where the time goes")
    options = arguments.parse_args()
    header(options.threads, options.untuned)
    figures = []
    for dtype in options.dtype or DTYPES:
        torch.manual_seed(0)
        layer = mb.layers.SparseFFN(options.dim, options.hidden, options.experts, options.k).to(DTYPES[dtype]).eval()
        rows = list(torch.randn(options.rows, 1, options.dim, dtype=DTYPES[dtype]).unbind())
        with torch.no_grad():
            print(f"{dtype}, E={options.experts}, k={options.k}: {': '.join(layer.mixture.chosen(rows[0]))}")
        figures += measure(layer, rows, options.rounds, dtype)
        if options.profile:
            profile(layer, rows)
    show(figures)
    write(figures, options.json)


if __name__ == "__main__":
    main()
