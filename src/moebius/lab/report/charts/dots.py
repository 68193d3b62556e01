"""A dot for every seed, a diamond for the mean and a bar for the interval: variants one below the other."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from moebius.lab.report.charts.parts import variant_colour
from moebius.lab.report.figures import WIDTH
from moebius.lab.report.frames import make_frame
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval


def dot_chart(study: Study, scores: Mapping[str, Mapping[int, float]], title: str) -> alt.TopLevelMixin:
    """The chart of values by variant and seed, such as accuracies.

    Few seeds give intervals many times as wide as their spread: the axis follows the values, and bars that leave the
    picture are cut.
    """
    scored = {variant: by_seed for variant, by_seed in scores.items() if by_seed}
    each = make_frame(
        [(name, value) for name, by_seed in scored.items() for value in by_seed.values()], ["variant", "v"]
    )
    found = {variant: interval(list(by_seed.values())) for variant, by_seed in scored.items()}
    means = make_frame([(variant, estimate.mean) for variant, estimate in found.items()], ["variant", "v"])
    bars = make_frame(
        [(name, one.low, one.high) for name, one in found.items() if one.low is not None], ["variant", "low", "high"]
    )
    low, high = float(each["v"].min()), float(each["v"].max())
    reach = max(high - low, 0.02)
    ends = [low, high, *(end for end in (*bars["low"], *bars["high"]) if low - reach < end < high + reach)]
    shown = alt.Scale(domain=[min(ends) - 0.1 * reach, max(ends) + 0.1 * reach], nice=False, zero=False)
    x = alt.X("v:Q", scale=shown, title=title, axis=alt.Axis(tickCount=6))
    y = alt.Y("variant:N", sort=list(study.variants), title=None)
    colour = variant_colour(study, study.variants, legend=False)
    layers: list[Any] = [
        alt.Chart(means).mark_point(size=70, filled=True, opacity=1, shape="diamond").encode(x, y, colour)
    ]
    if len(each) > len(means):
        layers.insert(0, alt.Chart(each).mark_point(size=26, opacity=0.6, strokeWidth=1.2).encode(x, y, colour))
    if len(bars):
        drawn = alt.Chart(bars).mark_rule(strokeWidth=2, opacity=0.7, clip=True)
        layers.insert(0, drawn.encode(alt.X("low:Q", scale=shown, title=title), alt.X2("high:Q"), y, colour))
    return alt.layer(*layers).properties(width=WIDTH, height=max(60, 28 * len(scored)))
