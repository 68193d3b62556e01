"""Curves of many variants: a small chart for each, with the range of all of them and the baseline behind."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from moebius.lab.report.charts.parts import epoch_axis
from moebius.lab.report.figures import COLOURS, INK, MUTED
from moebius.lab.report.frames import Frame

# Pixels.
COLUMNS, CELL, HEIGHT, GAP = 5, 118, 72, 16


def multiples_chart(
    frame: Frame, names: Sequence[str], limits: tuple[float, float], title: str, baseline: str | None
) -> alt.TopLevelMixin:
    """A chart for each variant: solid its curve on test, dashed on train.

    Arguments:
        frame: columns variant, split, epoch and mean.
        names: the variants, in the order of their charts.
        limits: ends of the axis, the same in every chart.
        title: of the axis.
        baseline: a variant whose test curve is grey in every chart; None for none.
    """
    x: Any = epoch_axis(frame, 3).title(None)
    scale = alt.Scale(domain=list(limits), nice=False, zero=False)
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=["test", "train"], range=[[1, 0], [5, 4]]), legend=None)
    tested = frame[frame["split"] == "test"]
    band = tested.groupby("epoch")["mean"].agg(low="min", high="max").reset_index()
    reference = tested[tested["variant"] == baseline]
    cells = []
    for place, name in enumerate(names):
        first = place % COLUMNS == 0
        axis = alt.Axis(labels=first, ticks=first, tickCount=3, labelFontSize=10)
        label = title if place == 0 else None
        y = alt.Y("mean:Q", scale=scale, axis=axis, title=label)
        of_variant = frame[frame["variant"] == name]
        layers: list[Any] = []
        if len(band) > 1:
            low = alt.Y("low:Q", scale=scale, axis=axis, title=label)
            layers.append(alt.Chart(band).mark_area(color=MUTED, opacity=0.15, clip=True).encode(x, low, y2="high:Q"))
            if len(reference) > 1:
                layers.append(alt.Chart(reference).mark_line(color=MUTED, strokeWidth=1, clip=True).encode(x, y))
        point: Any = alt.OverlayMarkDef(size=25) if of_variant["epoch"].nunique() == 1 else False
        line = alt.Chart(of_variant).mark_line(color=COLOURS[0], strokeWidth=1.8, point=point, clip=True)
        layers.append(line.encode(x, y, dash))
        head = alt.Chart(of_variant.head(1)).mark_text(
            align="left", baseline="bottom", fontSize=11, fontWeight="bold", color=INK, limit=CELL + GAP - 4
        )
        layers.append(head.encode(x=alt.value(0), y=alt.value(-4), text="variant:N"))
        cells.append(alt.layer(*layers).properties(width=CELL, height=HEIGHT))
    return alt.concat(*cells, columns=COLUMNS, spacing={"row": 42, "column": GAP}, bounds="flush")
