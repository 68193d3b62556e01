"""The time of a sparse layer with more and more experts, at a fixed number of experts per row: E = 8, 16, … 1,024.

    python benchmarks/experts.py --figure experts.svg

The benchmark compares `mb.layers.SparseFFN` with a dense layer of equal active work, run in the chunks with which it is
fastest, whose time does not grow with E; and with a lower bound by the memory, which grows with E: a forward reads the
weights of all experts that have rows, a backward reads them again and writes as many gradients. The candidates of one E
run in turn in one process; figures are medians over rounds, and ratios are taken within rounds and shown with their
smallest and largest value. The lower bound uses measured bandwidths: that of filling a tensor for bytes written, and
that of copying one for bytes read. `--figure` draws the figures, as SVG and as PNG. The allocator is tuned; `--untuned`
does not tune it.
"""

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _compare import Measurement, make_parser, prepare_process, write_rows

from moebius.experts.ffn import FFN
from moebius.lab.bench.dense import find_best_chunk, forward_call, memory_transfers, run_in_chunks, step_call
from moebius.lab.bench.timing import durations, ratio_row, time_in_turn, value_row
from moebius.lab.bench.workload import DTYPES, Workload

MODES = ("forward", "forward+backward")
OURS, DENSE, MEMORY = "moebius", "dense, equal active work", "limit of the memory"


def measure_bandwidths() -> dict[str, float]:
    """Bytes a second of each memory transfer, for tensors of half a gigabyte."""
    transfers = memory_transfers(2**29, "cpu")
    times = durations(time_in_turn({name: call for name, (call, _) in transfers.items()}, 5))
    return {name: count / median(times[name]) for name, (_, count) in transfers.items()}


def measure(workload: Workload, rounds: int, memory: dict[str, float]) -> list[Measurement]:
    """Milliseconds of the sparse layer, of the dense layer, and of the lower bound by the memory."""
    torch.manual_seed(0)
    layer, x = workload.make_layer(), workload.draw_rows(workload.rows)
    mixture = layer.mixture
    with torch.no_grad():
        loaded = int((mixture.router(mixture.gate(x)).aux["assigned"] > 0).sum())
    dense = FFN(workload.dim, workload.hidden, workload.activation, workload.bias).to(DTYPES[workload.dtype])
    dense_x, rows = workload.draw_rows(workload.assignments), []
    for mode in MODES:

        def make_dense_call(chunk: int, mode: str = mode):
            if mode == "forward":
                return forward_call(lambda x: run_in_chunks(dense, x, chunk), dense_x)
            return step_call(dense, dense_x, chunk)

        sparse_call = forward_call(layer, x) if mode == "forward" else step_call(layer, x)
        candidates = {OURS: sparse_call, DENSE: make_dense_call(find_best_chunk(make_dense_call, len(dense_x)))}
        seconds = durations(time_in_turn(candidates, rounds))
        times = {name: [1e3 * value for value in values] for name, values in seconds.items()}
        read, written = loaded * workload.expert_bytes, workload.experts * workload.expert_bytes
        floor = 1e3 * read / memory["copy"]
        if mode != "forward":
            floor = 2 * floor + 1e3 * written / memory["write"]
        title = f"E={workload.experts} {workload.dtype}, {mode}"
        rows += [value_row(f"{title}, {name}", values, "ms") for name, values in times.items()]
        rows.append(ratio_row(f"{title}, {OURS}", times[OURS], f"{title}, {DENSE}", times[DENSE], "ms"))
        rows.append(Measurement(f"{title}, {MEMORY}", floor, "ms", None, None, (floor, floor)))
        sparse_row, dense_row, ratio = rows[-4], rows[-3], rows[-2]
        print(
            f"{workload.experts:6,} {mode:<17}{sparse_row.value:9.1f} {dense_row.value:9.1f}   {ratio.ratio:5.2f} "
            f"({ratio.spread[0]:.2f} … {ratio.spread[1]:.2f}) {floor:9.1f}"
        )
    return rows


def make_points(rows: Iterable[Measurement]) -> list[dict[str, Any]]:
    """A point of the figure for each time: number of experts, mode, candidate, milliseconds."""
    points = []
    for row in rows:
        if row.versus is None:
            experts, mode, candidate = row.name.split(", ", 2)
            number = int(experts.split()[0][2:])
            points.append({"experts": number, "mode": mode, "candidate": candidate, "ms": row.value})
    return points


def draw_figure(rows: list[Measurement], workload: Workload, path: Path) -> None:
    """Write the figure as SVG and PNG."""
    import altair as alt
    import pandas as pd

    from moebius.lab.report.figures import COLOURS, Figure, render

    table = pd.DataFrame(make_points(rows))
    sizes = sorted(table["experts"].unique())
    order = [OURS, DENSE, MEMORY]
    # Colour and shape share one legend, so that their scales must agree.
    legend = alt.Legend(orient="bottom", labelLimit=0, title=None)
    powers = [10.0**power for power in range(-3, 7)]
    low, high = table["ms"].min() / 1.3, table["ms"].max() * 1.3
    lines = (
        alt.Chart(table)
        .mark_line(point={"size": 50})
        .encode(
            x=alt.X("experts:Q", title="experts", axis=alt.Axis(values=sizes, format="d", labelFlush=False)).scale(
                type="log", base=2, nice=False
            ),
            y=alt.Y("ms:Q", title="milliseconds a call", axis=alt.Axis(values=powers, format="~r")).scale(
                type="log", domain=[low, high], nice=False
            ),
            color=alt.Color("candidate:N", legend=legend).scale(domain=order, range=list(COLOURS[:3])),
            shape=alt.Shape("candidate:N", legend=legend).scale(domain=order),
        )
        .properties(width=300, height=240)
    )
    chart = lines.facet(column=alt.Column("mode:N", sort=list(MODES), title=None), spacing=40)
    caption = f"{workload.rows} rows, dim {workload.dim}, hidden {workload.hidden}, k {workload.k}, {workload.dtype}."
    summary = "; ".join(
        f"{point['candidate']} at E={point['experts']}: {point['ms']:.0f} ms" for point in make_points(rows[-3:])
    )
    svg, png = render(Figure(path.stem, chart, caption, summary))
    path.with_suffix(".svg").write_text(svg)
    path.with_suffix(".png").write_bytes(png)
    print(f"{path.with_suffix('.svg')} and {path.with_suffix('.png')}: {caption}")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--experts", type=int, action="append", help="default: 8, 16, … 1024")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--k", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    parser.add_argument("--figure", type=Path, help="draw the figure to this path, as .svg and .png")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    sizes = {"dim": options.dim, "hidden": options.hidden, "k": options.k, "rows": options.rows}
    workloads = [
        Workload(**sizes, experts=E, dtype=options.dtype) for E in options.experts or (2**n for n in range(3, 11))
    ]
    memory = measure_bandwidths()
    print(f"{workloads[0]}, and more experts")
    print(f"memory: writes {memory['write'] / 1e9:.1f} GB/s, copies {memory['copy'] / 2e9:.1f} GB/s")
    print(f"{'E':>6} {'ms':<17}{'ours':>9} {'dense':>9}   ours / dense        {'memory':>9}")
    rows = []
    for workload in workloads:
        rows += measure(workload, options.rounds, memory)
        gc.collect()
    if options.figure is not None:
        draw_figure(rows, workloads[-1], options.figure)
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
