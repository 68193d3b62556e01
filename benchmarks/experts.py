"""What more experts cost at a fixed number of experts per row: E = 8, 16, … 1,024.

    python benchmarks/experts.py --figure experts.svg

`mb.layers.SparseFFN` beside a dense layer of equal active work, in the chunks in which it is fastest, which does not
grow with E; and beside the limit of the memory, which does: a forward reads the weights of all experts that have rows,
a backward reads them again and writes as many gradients. All of one E in one process in turn, medians over rounds,
the ratio within rounds with its smallest and largest value. The limit is by measured bandwidths: of filling a tensor
for what is written, of copying one for what is read. `--figure` draws it, as SVG and as PNG beside it. The allocator
is tuned; `--untuned` leaves it as it comes.
"""

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _compare import Row, header, parser, write

from moebius.experts.ffn import FFN
from moebius.lab.bench.dense import best_chunk, chunked, forward, moved, step
from moebius.lab.bench.problem import DTYPES, Problem
from moebius.lab.bench.timing import alone, beside, in_turn, seconds

MODES = ("forward", "forward+backward")
OURS, DENSE, MEMORY = "moebius", "dense, equal active work", "limit of the memory"


def bandwidths() -> dict[str, float]:
    """Bytes in a second, over tensors of half a gigabyte."""
    ways = moved(2**29, "cpu")
    times = seconds(in_turn({name: call for name, (call, _) in ways.items()}, 5))
    return {name: count / median(times[name]) for name, (_, count) in ways.items()}


def measure(problem: Problem, rounds: int, memory: dict[str, float]) -> list[Row]:
    """Ours, the dense layer and the limit, in milliseconds."""
    torch.manual_seed(0)
    layer, x = problem.layer(), problem.random_rows(problem.rows)
    mixture = layer.mixture
    with torch.no_grad():
        reached = int((mixture.router(mixture.gate(x)).aux["assigned"] > 0).sum())
    dense = FFN(problem.dim, problem.hidden, problem.activation, problem.bias).to(DTYPES[problem.dtype])
    many, rows = problem.random_rows(problem.assignments), []
    for mode in MODES:

        def dense_in(chunk: int, mode: str = mode):
            if mode == "forward":
                return forward(lambda x: chunked(dense, x, chunk), many)
            return step(dense, many, chunk)

        ours = forward(layer, x) if mode == "forward" else step(layer, x)
        candidates = {OURS: ours, DENSE: dense_in(best_chunk(dense_in, len(many)))}
        times = {name: [1e3 * t for t in each] for name, each in seconds(in_turn(candidates, rounds)).items()}
        read, written = reached * problem.expert_bytes, problem.experts * problem.expert_bytes
        floor = 1e3 * read / memory["copy"]
        if mode != "forward":
            floor = 2 * floor + 1e3 * written / memory["write"]
        title = f"E={problem.experts} {problem.dtype}, {mode}"
        rows += [alone(f"{title}, {name}", each, "ms") for name, each in times.items()]
        rows.append(beside(f"{title}, {OURS}", times[OURS], f"{title}, {DENSE}", times[DENSE], "ms"))
        rows.append(Row(f"{title}, {MEMORY}", floor, "ms", None, None, (floor, floor)))
        own, other, both = rows[-4], rows[-3], rows[-2]
        print(
            f"{problem.experts:6,} {mode:<17}{own.value:9.1f} {other.value:9.1f}   {both.ratio:5.2f} "
            f"({both.spread[0]:.2f} … {both.spread[1]:.2f}) {floor:9.1f}"
        )
    return rows


def points(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One for each time, with the number of experts, the measurement, and whose it is."""
    found = []
    for row in rows:
        if row.versus is None:
            experts, mode, who = row.name.split(", ", 2)
            found.append({"experts": int(experts.split()[0][2:]), "mode": mode, "who": who, "ms": row.value})
    return found


def draw(rows: list[Row], problem: Problem, path: Path) -> None:
    """Write the figure as SVG and PNG."""
    import altair as alt
    import pandas as pd

    from moebius.lab.report.figures import COLOURS, Figure, render

    table = pd.DataFrame(points(rows))
    sizes = sorted(table["experts"].unique())
    order = [OURS, DENSE, MEMORY]
    # Colour and shape say the same, in one legend: their scales have to agree.
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
            color=alt.Color("who:N", legend=legend).scale(domain=order, range=list(COLOURS[:3])),
            shape=alt.Shape("who:N", legend=legend).scale(domain=order),
        )
        .properties(width=300, height=240)
    )
    chart = lines.facet(column=alt.Column("mode:N", sort=list(MODES), title=None), spacing=40)
    caption = f"{problem.rows} rows, dim {problem.dim}, hidden {problem.hidden}, k {problem.k}, {problem.dtype}."
    said = "; ".join(f"{one['who']} at E={one['experts']}: {one['ms']:.0f} ms" for one in points(rows[-3:]))
    svg, png = render(Figure(path.stem, chart, caption, said))
    path.with_suffix(".svg").write_text(svg)
    path.with_suffix(".png").write_bytes(png)
    print(f"{path.with_suffix('.svg')} and {path.with_suffix('.png')}: {caption}")


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--experts", type=int, action="append", help="default: 8, 16, … 1024")
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--hidden", type=int, default=512)
    arguments.add_argument("--k", type=int, default=2)
    arguments.add_argument("--rows", type=int, default=4096)
    arguments.add_argument("--dtype", choices=DTYPES, default="fp32")
    arguments.add_argument("--rounds", type=int, default=5, help="counted rounds")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    arguments.add_argument("--untuned", action="store_true", help="leave the allocator as it comes")
    arguments.add_argument("--figure", type=Path, help="draw it there, as .svg and .png")
    options = arguments.parse_args()
    header(options.threads, options.untuned)
    sizes = {"dim": options.dim, "hidden": options.hidden, "k": options.k, "rows": options.rows}
    problems = [
        Problem(**sizes, experts=E, dtype=options.dtype) for E in options.experts or (2**n for n in range(3, 11))
    ]
    memory = bandwidths()
    print(f"{problems[0]}, and more experts")
    print(f"memory: writes {memory['write'] / 1e9:.1f} GB/s, copies {memory['copy'] / 2e9:.1f} GB/s")
    print(f"{'E':>6} {'ms':<17}{'ours':>9} {'dense':>9}   ours / dense        {'memory':>9}")
    rows = []
    for problem in problems:
        rows += measure(problem, options.rounds, memory)
        gc.collect()
    if options.figure is not None:
        draw(rows, problems[-1], options.figure)
    write(rows, options.json)


if __name__ == "__main__":
    main()
