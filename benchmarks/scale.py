"""How long a training step of a mixture takes on many ranks, and what memory it needs, before there are any.

    python benchmarks/scale.py --experts 64 1024 --ranks 8 64 512       # a plan: the best layout for each
    python benchmarks/scale.py --experts 256 --ranks 64 --all           # every layout, and the parts of a step
    python benchmarks/scale.py --measure mine.json                      # measure this machine (two minutes)
    python benchmarks/scale.py --check --machine mine.json              # predicted beside real steps on 1, 2, 4 ranks

Layouts: DDP, FSDP2, expert parallel (EP), EP with FSDP2 for the rest of the model (EP+FSDP2), and groups of ranks that
share experts, with DDP or FSDP2 between groups (EP 8 × DDP 4). Assumptions and measured errors: docs/scaling.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _scale_check import as_row, error, measure_pairs
from _scale_job import KINDS, Job, Layout
from _scale_machine import BUILTIN, Machine, find_machine, merge_measurements, read_machine, write_machine
from _scale_model import Cost, best, fits, plan

from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.kit.files import write_json


def as_row_of_plan(job: Job, layout: Layout, priced: Cost, machine: Machine) -> dict[str, Any]:
    """A layout and its cost as plain values: milliseconds, gigabytes, rows a second."""
    parts = ("products", "exchange", "reduction", "optimizer", "calls")
    return {
        "experts": job.experts,
        "ranks": layout.ranks,
        "layout": layout.name,
        "kind": layout.kind,
        "ms": 1e3 * priced.seconds,
        **{f"{part}_ms": 1e3 * getattr(priced, part) for part in parts},
        "rows_per_second": job.rows * layout.ranks / priced.seconds,
        "gb": priced.memory.total / 1e9,
        "states_gb": priced.memory.states / 1e9,
        "exchanged_gb": priced.exchanged / 1e9,
        "reduced_gb": priced.reduced / 1e9,
        "load": priced.load,
        "fits": fits(priced.memory, machine),
    }


def number(value: float) -> str:
    """A number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print columns, as Markdown has them."""
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    for line in (titles, ["-" * width for width in widths], *lines):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |")


def print_every_layout(job: Job, costs: dict[Layout, Cost], machine: Machine) -> None:
    """A line for each layout of a number of ranks, the fastest that fits first."""
    ranked = sorted(costs, key=lambda layout: (not fits(costs[layout].memory, machine), costs[layout].seconds))
    titles = ("layout", "ms a step", "products", "exchange", "reduction", "optimizer", "calls", "GB a rank", "")
    lines = []
    for layout in ranked:
        priced = costs[layout]
        parts = (priced.products, priced.exchange, priced.reduction, priced.optimizer, priced.calls)
        milliseconds = [number(1e3 * seconds) for seconds in (priced.seconds, *parts)]
        verdict = "fits" if fits(priced.memory, machine) else "does not fit"
        lines.append((layout.name, *milliseconds, number(priced.memory.total / 1e9), verdict))
    print_table(titles, lines)


def print_best_layouts(jobs: Sequence[Job], ranks: Sequence[int], machine: Machine) -> None:
    """For each number of experts and ranks the fastest layout of each kind that fits, and the best of all."""
    lines = []
    for job in jobs:
        for count in ranks:
            costs = plan(job, count, machine)
            cells = []
            for kind in KINDS.values():
                layout = best(costs, machine, lambda layout, kind=kind: layout.kind == kind)
                cells.append("–" if layout is None else cell(layout, costs[layout], machine))
            winner = best(costs, machine)
            assert winner is not None
            room = fits(costs[winner].memory, machine)
            lines.append((f"{job.experts:,}", f"{count:,}", *cells, winner.name if room else "none fits"))
    print_table(("E", "ranks", *KINDS.values(), "best"), lines)
    print("Cells: milliseconds a step, GB a rank (the size of the group); ✗ = does not fit; – = not possible.")


def cell(layout: Layout, priced: Cost, machine: Machine) -> str:
    """Milliseconds, gigabytes and the size of the group, or that it does not fit."""
    group = f" ({layout.group})" if layout.group > 1 else ""
    if not fits(priced.memory, machine):
        return f"✗ {number(priced.memory.total / 1e9)} GB{group}"
    return f"{number(1e3 * priced.seconds)} ms, {number(priced.memory.total / 1e9)} GB{group}"


def print_check(machine: Machine, path: Path | None) -> None:
    """Predicted beside measured, and the errors."""
    pairs = measure_pairs(machine)
    rows = [as_row(pair) for pair in pairs]
    lines = []
    for row in rows:
        states = "equal" if row["predicted_states"] == row["measured_states"] else "DIFFERENT"
        peaks = f"{row['predicted_peak'] / 1e6:.0f} / {row['measured_peak'] / 1e6:.0f}"
        sent = f"{row['predicted_exchanged'] / 1e6:.2f} / {row['measured_exchanged'] / 1e6:.2f}"
        shape = f"{row['experts']}, {row['dim']}, {row['hidden']}, {row['rows']}"
        times = (f"{row['predicted_ms']:.1f}", f"{row['measured_ms']:.1f}", f"{row['ratio']:.2f}")
        lines.append((row["layout"] if row["ranks"] == 1 else f"{row['ranks']}: {row['layout']}", shape, *times))
        lines[-1] += (states, peaks, sent)
    titles = ("ranks: layout", "E, D, hidden, rows", "predicted ms", "measured ms", "ratio", "states")
    print_table((*titles, "peak MB, predicted / measured", "sent MB, predicted / measured"), lines)
    for name in ("all", *sorted({pair.layout.ranks for pair in pairs})):
        factors = error([pair for pair in pairs if name in ("all", pair.layout.ranks)])
        title = name if name == "all" else f"{name} ranks"
        print(f"{title}: {factors['pairs']} steps, off by a factor of {factors['median']:.2f} (median)", end="")
        print(f" and {factors['worst']:.2f} (worst)")
    if path is not None:
        write_json(path, rows)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="plan a job: what happens without --measure and --check")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure this machine; of a FILE the faster stays")
    parser.add_argument("--check", action="store_true", help="run real steps here on 1, 2 and 4 processes")
    parser.add_argument("--machine", help=f"{', '.join(BUILTIN)} or a JSON file (default: h100; of --check: cpu)")
    parser.add_argument("--efficiency", type=float, default=0.4, help="share of a GPU's peak, assumed (default 0.4)")
    parser.add_argument("--experts", type=int, nargs="+", default=[64, 256, 1024, 4096], help="E, in each layer")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 256, 1024])
    parser.add_argument("--d", type=int, default=2048, help="width of a row")
    parser.add_argument("--hidden", type=int, default=1024, help="width inside an expert")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--top-k", type=int, default=8, help="experts of a row")
    parser.add_argument("--rows-per-rank", type=int, default=8192, help="rows (tokens) of a rank in a step")
    parser.add_argument("--gated", action="store_true", help="experts of three matrices (swiglu)")
    parser.add_argument("--dense", type=int, help="parameters of a layer beside experts and gate (default 4 d²)")
    parser.add_argument("--format", choices=("bf16", "fp32"), help="of rows and products (default: the machine's)")
    parser.add_argument("--recompute", action="store_true", help="backward repeats each layer's forward")
    parser.add_argument("--concentration", type=float, help="of a Dirichlet router; default: experts loaded alike")
    parser.add_argument("--all", action="store_true", help="every layout and the parts of a step")
    parser.add_argument("--json", type=Path, help="also write every layout to this file")
    parser.add_argument("--figure", type=Path, help="draw time by ranks for the first number of experts, as .svg, .png")
    return parser


def run(options: argparse.Namespace) -> None:
    """What the command line asks for."""
    if options.measure is not None:
        from _scale_measure import measure_machine

        earlier = read_machine(options.measure) if options.measure.exists() else None
        machine = measure_machine()
        machine = machine if earlier is None else merge_measurements(earlier, machine)
        write_machine(machine, options.measure)
        print(f"{options.measure}: {machine.about}")
        return
    machine = find_machine(options.machine or ("cpu" if options.check else "h100"), options.efficiency)
    print(machine.about)
    if options.check:
        print_check(machine, options.json)
        return
    if options.format is not None and options.format not in machine.products:
        rule = f"needs a format that the machine has rates for: {', '.join(machine.products)}"
        raise ArgumentError("--format", rule, options.format, f"--format {next(iter(machine.products))}")
    shared = {
        "dim": options.d,
        "hidden": options.hidden,
        "layers": options.layers,
        "k": options.top_k,
        "rows": options.rows_per_rank,
        "gated": options.gated,
        "dense": options.dense,
        "format": options.format or next(iter(machine.products)),
        "recompute": options.recompute,
        "concentration": options.concentration,
    }
    jobs = [Job(experts=experts, **shared) for experts in options.experts]
    print(
        f"D {options.d}, hidden {options.hidden}, {options.layers} layers, k {options.top_k}, "
        f"{options.rows_per_rank} rows a rank, {shared['format']}{', recomputation' if options.recompute else ''}"
    )
    sizes = [f"E {job.experts:,}: {number(job.parameters / 1e9)} G parameters" for job in jobs]
    print("; ".join(sizes))
    if options.all:
        for job in jobs:
            for ranks in options.ranks:
                print(f"\nE {job.experts:,}, {ranks:,} ranks")
                print_every_layout(job, plan(job, ranks, machine), machine)
    else:
        print_best_layouts(jobs, options.ranks, machine)
    if options.json is not None:
        rows = []
        for job in jobs:
            for ranks in options.ranks:
                costs = plan(job, ranks, machine).items()
                rows += [as_row_of_plan(job, layout, priced, machine) for layout, priced in costs]
        write_json(options.json, rows)
    if options.figure is not None:
        from _scale_figure import draw_figure

        draw_figure(jobs[0], options.ranks, machine, options.figure)


def main(arguments: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    try:
        run(make_parser().parse_args(arguments))
    except MoebiusError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
