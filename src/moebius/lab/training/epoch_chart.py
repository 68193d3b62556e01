"""The figures of one model's epochs as a drawing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.report.figures import COLOURS, HEIGHT, THEME, WIDTH
from moebius.lab.training.callbacks import flat_metrics

SPLITS: tuple[str, ...] = ("train", "validation", "test")


def draw_epochs(metrics: Sequence[Mapping[str, Any]], names: Sequence[str], reported: int) -> Any:
    """A panel for each figure: its values by epoch, a line for each split that has it.

    Arguments:
        metrics: one entry per epoch.
        names: of the figures.
        reported: the epoch whose weights the model has; 0 for none.

    Raises:
        ArgumentError: no epoch has a figure of this name.
    """
    lines = [
        (entry["epoch"], *name.split("/", 1), value) for entry in metrics for name, value in flat_metrics(entry).items()
    ]
    present = list(dict.fromkeys(name for _, _, name, _ in lines))
    for name in names:
        if name not in present:
            rule = f"needs a figure of the epochs, one of {', '.join(present)}"
            raise ArgumentError("names", rule, name, did_you_mean(name, present))
    splits = [split for split in SPLITS if any(line[1] == split and line[2] in names for line in lines)]
    panels = [_draw_panel([line for line in lines if line[2] == name], name, splits, reported) for name in names]
    return alt.hconcat(*panels).configure(**THEME).properties(background="white")


def _draw_panel(lines: Sequence[tuple[Any, ...]], name: str, splits: Sequence[str], reported: int) -> Any:
    # As plain values: altair refuses frames of more than 5,000 lines.
    values = [
        {"epoch": epoch, "split": split, "value": value} for epoch, split, _, value in lines if math.isfinite(value)
    ]
    epochs = sorted({epoch for epoch, *_ in lines})
    ticks: dict[str, Any] = {"values": epochs} if len(epochs) <= 12 else {"tickCount": 8, "tickMinStep": 1}
    domain = [epochs[0], epochs[-1]] if len(epochs) > 1 else [epochs[0] - 1, epochs[0] + 1]
    scale = alt.Scale(domain=domain, nice=False)
    x = alt.X("epoch:Q", axis=alt.Axis(format="d", grid=False, **ticks), scale=scale)
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None)
    palette = dict(zip(SPLITS, (COLOURS[0], COLOURS[1], COLOURS[2]), strict=True))
    colour = alt.Color(
        "split:N", scale=alt.Scale(domain=splits, range=[palette[split] for split in splits]), legend=legend
    )
    dashes = [[5, 4] if split == "train" else [1, 0] for split in splits]
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=splits, range=dashes), legend=legend)
    tooltip = [alt.Tooltip("epoch:Q"), alt.Tooltip("split:N"), alt.Tooltip("value:Q", format=".4f", title=name)]
    base = alt.Chart(alt.InlineData(values=values))
    layers: list[Any] = [base.mark_line(strokeWidth=2).encode(x, y, colour, dash, tooltip=tooltip)]
    if len(epochs) == 1:
        layers = [base.mark_point(size=60, filled=True, opacity=1).encode(x, y, colour, tooltip=tooltip)]
    if reported in epochs and len(epochs) > 1:
        rule = alt.Chart(alt.InlineData(values=[{"epoch": reported}])).mark_rule(color="#888888", strokeDash=[2, 3])
        layers.append(rule.encode(x))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
