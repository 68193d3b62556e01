"""What a mixture reaches beside what its experts allow: a line for each variant."""

from collections.abc import Mapping

import altair as alt

from moebius.lab.report.figures import INK, WIDTH
from moebius.lab.report.frames import make_frame

# Name → colour and shape.
MARKS = {
    "a random expert": ("#888888", "circle"),
    "best single expert": ("#E69F00", "square"),
    "mixture": ("#0072B2", "diamond"),
    "oracle": ("#009E73", "triangle-up"),
}


def headroom_chart(scores: Mapping[str, Mapping[str, float]], title: str) -> alt.TopLevelMixin:
    """The chart of scores by variant: a grey bar from the smallest to the largest, and a mark for each.

    Arguments:
        scores: variant → name of `MARKS` → score.
        title: of the axis.
    """
    lines = [(variant, name, value) for variant, of in scores.items() for name, value in of.items()]
    frame = make_frame(lines, ["variant", "choice", "score"])
    spans = frame.groupby("variant", sort=False)["score"].agg(low="min", high="max").reset_index()
    low, high = float(frame["score"].min()), float(frame["score"].max())
    pad = 0.04 * max(high - low, 0.02)
    x = alt.X(
        "score:Q",
        title=title,
        scale=alt.Scale(domain=[low - pad, high + pad], nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y("variant:N", sort=list(scores), title=None, axis=alt.Axis(labelLimit=160))
    order = [name for name in MARKS if (frame["choice"] == name).any()]
    legend = alt.Legend(title=None, columns=2, symbolOpacity=1)
    colour = alt.Color(
        "choice:N", scale=alt.Scale(domain=order, range=[MARKS[name][0] for name in order]), legend=legend
    )
    shape = alt.Shape("choice:N", scale=alt.Scale(domain=order, range=[MARKS[name][1] for name in order]))
    bars = alt.Chart(spans).mark_rule(strokeWidth=1.2, color=INK, opacity=0.45)
    layers = [
        bars.encode(alt.X("low:Q", title=title), alt.X2("high:Q"), y),
        alt.Chart(frame).mark_point(size=85, filled=True, opacity=1).encode(x, y, colour, shape),
    ]
    return alt.layer(*layers).properties(width=1.5 * WIDTH, height=max(70, 26 * len(scores)))
