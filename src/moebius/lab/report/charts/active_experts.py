"""The score against active experts: a line for each variant, from as trained to exactly one expert."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.figures import INK
from moebius.lab.report.frames import Frame, make_frame

WIDTH, HEIGHT, LINE = 400, 420, 14
TITLE = "active experts per row"
# Variants with more active experts than SHOWN_APART have their name at the right too; those above MANY are spread
# apart from the rest, because they are further right.
SHOWN_APART, MANY = 1.3, 4.5


def active_chart(frame: Frame, levels: Mapping[str, float], title: str) -> alt.TopLevelMixin:
    """The chart of a frame with the columns variant, way, active (number of experts) and score.

    `way` is "as trained" (a point) or "exactly one expert" (a ring). The names of the rings are at the left; those of
    points with several active experts are beside the points. Names that would overlap are moved apart, and a thin line
    connects a name with its ring.

    Arguments:
        frame: a line or two for each variant.
        levels: scores to mark by dashed lines, by name.
        title: of the axis of scores.
    """
    ends = [*frame["score"], *levels.values()]
    reach = max(max(ends) - min(ends), 0.01)
    domain = [min(ends) - 0.06 * reach, max(ends) + 0.06 * reach]
    most = max(2.0, float(frame["active"].max()))
    ticks = [tick for tick in (1, 2, 3, 5, 7, 10, 20, 50, 100) if tick <= most * 1.05]
    along = alt.Scale(type="log", domain=[0.24, most * 2], nice=False)
    upward = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("active:Q", title=TITLE, scale=along, axis=alt.Axis(values=ticks, grid=False, format="~g"))
    y = alt.Y("score:Q", title=title, scale=upward)
    left, at = alt.X("left:Q", scale=along, title=TITLE), alt.Y("at:Q", scale=upward, title=title)
    rings = frame[frame["way"] == "exactly one expert"].sort_values("score", ascending=False)
    names = _spread_names(list(rings["variant"]), list(rings["score"]), domain)
    trained = frame[frame["way"] == "as trained"]
    blue, orange = alt.value("#0072B2"), alt.value("#D55E00")
    font: dict[str, Any] = {"fontSize": 11.5, "color": INK}
    rules = alt.Chart(make_frame([(1.0, most, level) for level in levels.values()], ["active", "end", "score"]))
    layers: list[Any] = [
        rules.mark_rule(strokeDash=[3, 4], strokeWidth=1, color="#888888").encode(x, alt.X2("end:Q"), y),
        alt.Chart(frame).mark_line(strokeWidth=1, opacity=0.45).encode(x, y, alt.Detail("variant:N"), color=blue),
        alt.Chart(trained).mark_point(size=46, filled=True, opacity=1).encode(x, y, color=blue),
        alt.Chart(rings).mark_point(size=46, strokeWidth=1.8, fill="white", opacity=1).encode(x, y, color=orange),
        alt.Chart(names).mark_rule(strokeWidth=0.7, opacity=0.6).encode(left, alt.X2("ring:Q"), at, alt.Y2("score:Q")),
        alt.Chart(names).mark_text(align="right", baseline="middle", dx=-3, **font).encode(left, at, text="variant:N"),
        alt.Chart(_names_beside(trained, domain))
        .mark_text(align="left", baseline="middle", dx=7, **font)
        .encode(x, at, text="variant:N"),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _names_beside(trained: Frame, domain: Sequence[float]) -> Frame:
    """Variant, active and height `at` of the names at the right; few and many active experts are spread separately."""
    lines = []
    for few in (True, False):
        points = trained[(trained["active"] > SHOWN_APART) & ((trained["active"] < MANY) == few)]
        points = points.sort_values("score", ascending=False)
        heights = _spread_names(list(points["variant"]), list(points["score"]), domain)["at"]
        lines += list(zip(points["variant"], points["active"], heights, strict=True))
    return make_frame(lines, ["variant", "active", "at"])


def _spread_names(names: Sequence[str], scores: Sequence[float], domain: Sequence[float]) -> Frame:
    """A height `at` for each name: its score, or the nearest one that keeps lines of text apart; the best first."""
    step = LINE / HEIGHT * (domain[1] - domain[0])
    heights: list[float] = []
    for score in scores:
        heights.append(min(score, heights[-1] - step) if heights else score)
    # Names that fell below the picture move up again, beginning with the lowest.
    floor = domain[0] + step / 2
    for place in reversed(range(len(heights))):
        heights[place] = max(heights[place], floor)
        floor = heights[place] + step
    lines = zip(names, heights, scores, strict=True)
    return make_frame([(*line, 0.78, 0.97) for line in lines], ["variant", "at", "score", "left", "ring"])
