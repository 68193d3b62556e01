"""What a model makes of rows of one number or two: its function, those of its experts, and who takes which rows."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float

from moebius.lab.report.blocks import Block, Heading, Panels, Section, Text
from moebius.lab.report.charts.parts import SHADES
from moebius.lab.report.figures import COLOURS, HEIGHT, WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_names import outer_gates
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.numbers import listing, rate
from moebius.lab.report.queries import figure_name
from moebius.lab.report.source import Study

ORDER = 45
# Points of a figure: more would hide each other, and make the page large.
MOST_ROWS = 800


def functions(rows: SplitRows) -> pd.DataFrame | None:
    """Target, prediction and winning expert beside the numbers of each row.

    Arguments:
        rows: with one feature or two.

    Returns:
        Columns x1 and x2 (NaN where rows have one feature), domain, target, prediction, expert (of the outermost gate,
        with the largest weight; 0 without a gate), and alone_0, alone_1, …: what each expert predicts by itself. Sorted
        by x1; of many rows, evenly spread ones. None where rows have no or more features, or no target of their own.

    Example:
        >>> numbers, one = np.array([0.5, 0.1]), np.zeros(2, np.int64)
        >>> weights = {"gate": np.array([[0.9, 0.1], [0.2, 0.8]])}
        >>> rows = SplitRows("test", numbers, numbers, one, (), ("all",), weights, numbers, {"x": numbers})
        >>> functions(rows)[["x1", "target", "expert"]].to_numpy().tolist()
        [[0.1, 0.1, 1.0], [0.5, 0.5, 0.0]]

    Reference: ours.
    """
    if not 1 <= len(rows.features) <= 2 or np.isnan(rows.labels.astype(float)).any():
        return None
    names = [*rows.features]
    gate = next(iter(outer_gates([*rows.gates])), None)
    first = rows.features[names[0]]
    columns = {
        "x1": first,
        "x2": rows.features[names[1]] if len(names) > 1 else np.full(len(first), np.nan),
        "domain": np.asarray(rows.domain_names, dtype=object)[rows.domains],
        "target": rows.labels,
        "prediction": rows.predictions,
        "expert": _winners(rows.gates[gate]) if gate is not None else np.zeros(len(first), dtype=np.int64),
        **{f"alone_{place}": values for place, values in enumerate(rows.alone.values())},
    }
    frame = pd.DataFrame(columns).sort_values("x1", ignore_index=True)
    keep = np.linspace(0, len(frame) - 1, min(len(frame), MOST_ROWS)).round().astype(int)
    return frame.iloc[keep].reset_index(drop=True).assign(names=" ".join(names))


def split_table(rows: SplitRows) -> Frame | None:
    """The lines of the test split of a task of numbers."""
    return functions(rows) if rows.split == "test" and not rows.class_names else None


def section(study: Study) -> Section | None:
    """The first seed's functions of every variant."""
    frame = study.table("functions", split="test")
    if frame.empty:
        return None
    text = "Test rows of the first seed. Grey: targets; thick: the model, in the colour of the expert that wins the row"
    two = bool(frame["x2"].notna().any())
    text = "Test rows of the first seed, coloured by the expert that wins them" if two else text
    blocks: list[Block] = [Text(text + ("." if two else "; thin: each expert by itself."))]
    figures = []
    for variant in study.variants:
        of_variant = frame[frame["variant"] == variant]
        if len(of_variant):
            first = of_variant[of_variant["seed"] == of_variant["seed"].min()].reset_index(drop=True)
            figures.append(_figure(study, first, variant, two))
    if two:
        figures.insert(0, _domain_figure(study, frame))
    blocks += [Heading("What each model makes of its input"), Panels(figures)]
    return Section("functions", "Functions", blocks)


def _winners(weights: Float[np.ndarray, "T E"]) -> np.ndarray:
    return np.where(np.isfinite(weights), weights, -np.inf).argmax(1)


def _colour(experts: int, few: bool = True) -> alt.Color:
    names = [f"expert {number}" for number in range(experts)]
    colours = [COLOURS[number % len(COLOURS)] for number in range(experts)]
    legend = alt.Legend(title=None, columns=4, symbolType="circle") if few and experts > 1 else None
    return alt.Color("by:N", scale=alt.Scale(domain=names, range=colours), legend=legend)


def _figure(study: Study, frame: Frame, variant: str, two: bool) -> Figure:
    alone = [name for name in frame.columns if name.startswith("alone_") and frame[name].notna().any()]
    experts = max(int(frame["expert"].max()) + 1, len(alone))
    frame = frame.assign(by=[f"expert {number}" for number in frame["expert"]])
    chart = _plane_chart(frame, experts) if two else _line_chart(frame, alone, experts)
    shares = frame["expert"].value_counts(normalize=True).sort_index()
    wins = listing([f"expert {number} {rate(float(share))}" for number, share in shares.items()])
    error = float(np.square(frame["target"] - frame["prediction"]).mean() ** 0.5)
    caption = f"{variant}, seed {frame['seed'].iloc[0]}: root mean squared error {rate(error)}."
    return Figure(figure_name(study, "functions", variant), chart, caption, f"{caption} Rows won: {wins}.")


def _line_chart(frame: Frame, alone: Sequence[str], experts: int) -> alt.TopLevelMixin:
    x = alt.X("x1:Q", title=frame["names"].iloc[0], scale=alt.Scale(nice=False), axis=alt.Axis(grid=False))
    targets = frame["target"]
    pad = 0.15 * float(targets.max() - targets.min())
    scale = alt.Scale(domain=[float(targets.min()) - pad, float(targets.max()) + pad], nice=False)

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title="target and prediction", scale=scale)

    layers: list[Any] = [
        alt.Chart(frame)
        .mark_point(size=8, filled=True, opacity=0.35, color="#999999", clip=True)
        .encode(x, y("target"))
    ]
    for number, column in enumerate(alone if len(alone) > 1 else ()):
        line = alt.Chart(frame).mark_line(strokeWidth=0.8, opacity=0.8, clip=True, color=COLOURS[number % len(COLOURS)])
        layers.append(line.encode(x, y(column)))
    points = alt.Chart(frame).mark_point(size=13, filled=True, opacity=1, clip=True)
    layers.append(points.encode(x, y("prediction"), _colour(experts)))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _plane_chart(frame: Frame, experts: int) -> alt.TopLevelMixin:
    return _plane(frame, _colour(experts))


def _plane(frame: Frame, colour: alt.Color) -> alt.TopLevelMixin:
    names = frame["names"].iloc[0].split(" ")
    axes = [
        alt_class(f"{column}:Q", title=name, scale=alt.Scale(nice=False), axis=alt.Axis(grid=False))
        for alt_class, column, name in zip((alt.X, alt.Y), ("x1", "x2"), names, strict=True)
    ]
    points = alt.Chart(frame).mark_point(size=30, filled=True, opacity=0.85)
    return points.encode(*axes, colour).properties(width=WIDTH * 0.8, height=WIDTH * 0.8)


def _domain_figure(study: Study, frame: Frame) -> Figure:
    first = frame[(frame["variant"] == frame["variant"].iloc[0]) & (frame["seed"] == frame["seed"].min())]
    if len(study.domains) > 1:
        scale = alt.Scale(domain=list(study.domains), range=[*COLOURS[: len(study.domains)]])
        colour = alt.Color("domain:N", scale=scale, legend=alt.Legend(title=None, columns=3, symbolType="circle"))
        caption = "The data sets of the test rows."
    else:
        colour = alt.Color("target:Q", scale=alt.Scale(range=SHADES), legend=alt.Legend(title="target"))
        caption = "The targets of the test rows."
    return Figure("functions", _plane(first.reset_index(drop=True), colour), caption, caption)
