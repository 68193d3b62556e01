"""The figure of `scale.py`: time of a step by ranks, a line for each kind of layout."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd
from _scale_job import KINDS, Job
from _scale_machine import Machine
from _scale_model import best, fits, plan

from moebius.lab.report.figures import COLOURS, Figure, render

FITS, TOO_LARGE = "fits", "does not fit"


def draw_figure(job: Job, ranks: Sequence[int], machine: Machine, path: Path) -> None:
    """Write the figure as SVG and PNG: the best layout of each kind, with a cross where none of it fits."""
    points = []
    for count in ranks:
        costs = plan(job, count, machine)
        for kind in KINDS.values():
            layout = best(costs, machine, lambda layout, kind=kind: layout.kind == kind)
            if layout is not None:
                room = FITS if fits(costs[layout].memory, machine) else TOO_LARGE
                points.append({"ranks": count, "kind": kind, "ms": 1e3 * costs[layout].seconds, "room": room})
    table = pd.DataFrame(points)
    powers = [base * 10.0**power for power in range(-1, 6) for base in (1, 2, 5)]
    low, high = table["ms"].min() / 1.2, table["ms"].max() * 1.2
    base = alt.Chart(table).encode(
        x=alt.X("ranks:Q", axis=alt.Axis(values=sorted(set(ranks)), format=",d", labelFlush=False)).scale(
            type="log", base=2, nice=False, padding=14
        ),
        y=alt.Y("ms:Q", title="milliseconds a step", axis=alt.Axis(values=powers, format=",~r")).scale(
            type="log", domain=[low, high], nice=False
        ),
        color=alt.Color("kind:N", legend=alt.Legend(title=None, columns=2)).scale(
            domain=[*KINDS.values()], range=list(COLOURS[: len(KINDS)])
        ),
    )
    shape = alt.Shape("room:N", legend=alt.Legend(title=None, columns=2)).scale(
        domain=[FITS, TOO_LARGE], range=["circle", "cross"]
    )
    marks = base.mark_point(size=70, filled=True, opacity=1).encode(shape=shape)
    chart = (base.mark_line() + marks).properties(width=400, height=260)
    caption = f"{job.experts:,} experts in each of {job.layers} layers, {job.rows:,} rows a rank. {machine.about}."
    last = [point for point in points if point["ranks"] == max(ranks)]
    summary = "; ".join(f"{p['kind']} on {p['ranks']} ranks: {p['ms']:.0f} ms, {p['room']}" for p in last)
    svg, png = render(Figure(path.stem, chart, caption, summary))
    path.with_suffix(".svg").write_text(svg)
    path.with_suffix(".png").write_bytes(png)
    print(f"{path.with_suffix('.svg')} and {path.with_suffix('.png')}: {caption} {summary}")
