"""Shares of seeds: a dot for each, and a bar for its exact interval."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from moebius.lab.report.figures import COLOURS, WIDTH
from moebius.lab.report.frames import make_frame
from moebius.lab.statistics.clopper_pearson import clopper_pearson


def share_chart(counts: Mapping[str, tuple[int, int]], title: str) -> alt.TopLevelMixin:
    """The chart of the shares of seeds in which something happened, one row for each label, in their order.

    Arguments:
        counts: label → how often it happened, and of how many seeds.
        title: of the axis.
    """
    lines = [(label, k / n, *clopper_pearson(k, n)) for label, (k, n) in counts.items()]
    frame = make_frame(lines, columns=["label", "share", "low", "high"])
    x = alt.X("share:Q", scale=alt.Scale(domain=[0, 1]), title=title, axis=alt.Axis(format="%", tickCount=5))
    y = alt.Y("label:N", sort=list(counts), title=None)
    base = alt.Chart(frame)
    low, high = alt.X("low:Q", title=title), alt.X2("high:Q")
    bars = base.mark_rule(strokeWidth=2, opacity=0.5, color=COLOURS[0]).encode(low, high, y)
    dots = base.mark_point(size=60, filled=True, opacity=1, color=COLOURS[0]).encode(x, y)
    room: Any = {"left": 16, "top": 5, "right": 5, "bottom": 5}
    return alt.layer(bars, dots, padding=room).properties(width=WIDTH, height=max(60, 22 * len(counts)))
