"""Values by variant and seed: a dot for every seed, a diamond for the mean and a bar for the interval."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.figures import COLOURS, INK, MUTED, WIDTH
from moebius.lab.report.frames import make_frame
from moebius.lab.report.queries import estimate_of
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

# Pixels of a row; of a chart with MANY rows, of which each has less.
MANY, STEP, NARROW_STEP = 12, 28, 18


def dot_chart(
    study: Study,
    scores: Mapping[str, Mapping[int, float]],
    title: str,
    published: Mapping[str, float] | None = None,
    kept: Sequence[str] | None = None,
    baseline: str | None = None,
    pick: str | None = None,
) -> alt.TopLevelMixin:
    """The chart of a measure, one row for each variant.

    With few seeds an interval is many times as wide as the range of the values. The axis covers the values, and bars
    that are longer are cut.

    Arguments:
        study: sets the order of the variants; its intervals over rows are drawn where it has a single seed.
        scores: variant → seed → value.
        title: of the axis.
        published: variant → published value, drawn as a triangle.
        kept: the variants from above; None for the study's order.
        baseline: a variant whose mean is a dashed line and whose name is bold; None for none. With one the values are
            those of the study's score.
        pick: a variant whose marks are orange; None for none.
    """
    scored = {variant: by_seed for variant, by_seed in scores.items() if by_seed}
    each = make_frame(
        [(name, value) for name, by_seed in scored.items() for value in by_seed.values()], ["variant", "v"]
    )
    estimates = {
        variant: interval(list(by_seed.values())) if baseline is None else estimate_of(study, variant)
        for variant, by_seed in scored.items()
    }
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
    is_baseline = {"test": f"datum.value == {json.dumps(baseline)}", "value": "bold"}
    weight: Any = {"condition": is_baseline, "value": "normal"}
    y = alt.Y("variant:N", sort=list(kept or study.variants), title=None, axis=alt.Axis(labelFontWeight=weight))
    picked: Any = alt.condition(alt.datum["variant"] == pick, alt.value(COLOURS[1]), alt.value(COLOURS[0]))
    layers: list[Any] = [
        alt.Chart(means).mark_point(size=70, filled=True, opacity=1, shape="diamond").encode(x, y, color=picked)
    ]
    if len(each) > len(means):
        layers.insert(0, alt.Chart(each).mark_point(size=26, opacity=0.6, strokeWidth=1.2).encode(x, y, color=picked))
    if len(bars):
        rules = alt.Chart(bars).mark_rule(strokeWidth=2, opacity=0.7, clip=True)
        layers.insert(0, rules.encode(alt.X("low:Q", scale=scale, title=title), alt.X2("high:Q"), y, color=picked))
    if baseline in estimates and len(estimates) > 1:
        line = alt.Chart(make_frame([(estimates[baseline].mean,)], ["v"]))
        layers.insert(0, line.mark_rule(strokeDash=[4, 3], color=MUTED).encode(x))
    if len(marks):
        triangle = alt.Chart(marks).mark_point(size=75, shape="triangle-down", color=INK, strokeWidth=1.8, opacity=1)
        layers.append(triangle.encode(x, y))
    # Room at the left, for a browser's font may be wider than the one that the drawing is measured with.
    room: Any = {"left": 16, "top": 5, "right": 5, "bottom": 5}
    step = STEP if len(scored) <= MANY else NARROW_STEP
    return alt.layer(*layers, padding=room).properties(width=WIDTH, height=max(60, step * len(scored)))
