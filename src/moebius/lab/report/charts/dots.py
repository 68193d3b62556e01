"""Values by variant and seed: a dot for every seed, a diamond for the mean and a bar for the interval."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from moebius.lab.report.charts.parts import variant_colour
from moebius.lab.report.figures import INK, WIDTH
from moebius.lab.report.frames import make_frame
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval


def dot_chart(
    study: Study,
    scores: Mapping[str, Mapping[int, float]],
    title: str,
    published: Mapping[str, float] | None = None,
) -> alt.TopLevelMixin:
    """The chart of a measure, one row for each variant.

    With few seeds an interval is many times as wide as the range of the values. The axis covers the values, and bars
    that are longer are cut.

    Arguments:
        study: sets the order and the colours of the variants.
        scores: variant → seed → value.
        title: of the axis.
        published: variant → published value, drawn as a triangle.
    """
    scored = {variant: by_seed for variant, by_seed in scores.items() if by_seed}
    each = make_frame(
        [(name, value) for name, by_seed in scored.items() for value in by_seed.values()], ["variant", "v"]
    )
    estimates = {variant: interval(list(by_seed.values())) for variant, by_seed in scored.items()}
    means = make_frame([(variant, estimate.mean) for variant, estimate in estimates.items()], ["variant", "v"])
    bars = make_frame(
        [(name, estimate.low, estimate.high) for name, estimate in estimates.items() if estimate.low is not None],
        ["variant", "low", "high"],
    )
    marks = make_frame([pair for pair in (published or {}).items() if pair[0] in scored], ["variant", "v"])
    values = [*each["v"], *marks["v"]]
    low, high = float(min(values)), float(max(values))
    reach = max(high - low, 0.02)
    ends = [low, high, *(end for end in (*bars["low"], *bars["high"]) if low - reach < end < high + reach)]
    scale = alt.Scale(domain=[min(ends) - 0.1 * reach, max(ends) + 0.1 * reach], nice=False, zero=False)
    x = alt.X("v:Q", scale=scale, title=title, axis=alt.Axis(tickCount=6))
    y = alt.Y("variant:N", sort=list(study.variants), title=None)
    colour = variant_colour(study, study.variants, legend=False)
    layers: list[Any] = [
        alt.Chart(means).mark_point(size=70, filled=True, opacity=1, shape="diamond").encode(x, y, colour)
    ]
    if len(each) > len(means):
        layers.insert(0, alt.Chart(each).mark_point(size=26, opacity=0.6, strokeWidth=1.2).encode(x, y, colour))
    if len(bars):
        rules = alt.Chart(bars).mark_rule(strokeWidth=2, opacity=0.7, clip=True)
        layers.insert(0, rules.encode(alt.X("low:Q", scale=scale, title=title), alt.X2("high:Q"), y, colour))
    if len(marks):
        triangle = alt.Chart(marks).mark_point(size=75, shape="triangle-down", color=INK, strokeWidth=1.8, opacity=1)
        layers.append(triangle.encode(x, y))
    # Room at the left, for a browser's font may be wider than the one that the drawing is measured with.
    room: Any = {"left": 16, "top": 5, "right": 5, "bottom": 5}
    return alt.layer(*layers, padding=room).properties(width=WIDTH, height=max(60, 28 * len(scored)))
