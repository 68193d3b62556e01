"""Accuracy against active experts: each variant a line from what it was trained as to exactly one expert."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.figures import INK
from moebius.lab.report.frames import Frame, make_frame

WIDTH, HEIGHT, LINE = 400, 420, 14
TITLE = "active experts per image"
SHOWN_APART, MANY = 1.3, 4.5


def active_chart(frame: Frame, levels: Mapping[str, float]) -> alt.TopLevelMixin:
    """The chart of variant, way ("as trained" or "exactly one expert"), active and accuracy.

    Names stand at the left for the rings and at the points for what runs more than one expert; names that would
    overlap are moved apart and tied to their ring by a thin line.
    """
    ends = [*frame["accuracy"], *levels.values()]
    reach = max(max(ends) - min(ends), 0.01)
    domain = [min(ends) - 0.06 * reach, max(ends) + 0.06 * reach]
    most = max(2.0, float(frame["active"].max()))
    ticks = [tick for tick in (1, 2, 3, 5, 7, 10, 20, 50, 100) if tick <= most * 1.05]
    along = alt.Scale(type="log", domain=[0.24, most * 2], nice=False)
    upward = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("active:Q", title=TITLE, scale=along, axis=alt.Axis(values=ticks, grid=False, format="~g"))
    y = alt.Y("accuracy:Q", title="test accuracy", scale=upward)
    left, at = alt.X("left:Q", scale=along, title=TITLE), alt.Y("at:Q", scale=upward, title="test accuracy")
    ones = frame[frame["way"] == "exactly one expert"].sort_values("accuracy", ascending=False)
    names = _spread(list(ones["variant"]), list(ones["accuracy"]), domain)
    trained = frame[frame["way"] == "as trained"]
    blue, orange = alt.value("#0072B2"), alt.value("#D55E00")
    words: dict[str, Any] = {"fontSize": 11.5, "color": INK}
    rules = alt.Chart(make_frame([(1.0, most, level) for level in levels.values()], ["active", "end", "accuracy"]))
    layers: list[Any] = [
        rules.mark_rule(strokeDash=[3, 4], strokeWidth=1, color="#888888").encode(x, alt.X2("end:Q"), y),
        alt.Chart(frame).mark_line(strokeWidth=1, opacity=0.45).encode(x, y, alt.Detail("variant:N"), color=blue),
        alt.Chart(trained).mark_point(size=46, filled=True, opacity=1).encode(x, y, color=blue),
        alt.Chart(ones).mark_point(size=46, strokeWidth=1.8, fill="white", opacity=1).encode(x, y, color=orange),
        alt.Chart(names)
        .mark_rule(strokeWidth=0.7, opacity=0.6)
        .encode(left, alt.X2("ring:Q"), at, alt.Y2("accuracy:Q")),
        alt.Chart(names).mark_text(align="right", baseline="middle", dx=-3, **words).encode(left, at, text="variant:N"),
        alt.Chart(_beside(trained, domain))
        .mark_text(align="left", baseline="middle", dx=7, **words)
        .encode(x, at, text="variant:N"),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _beside(trained: Frame, domain: Sequence[float]) -> Frame:
    """Names at the right of what runs more than one expert, apart from each other: those of few and those of many."""
    lines = []
    for few in (True, False):
        own = trained[(trained["active"] > SHOWN_APART) & ((trained["active"] < MANY) == few)]
        own = own.sort_values("accuracy", ascending=False)
        places = _spread(list(own["variant"]), list(own["accuracy"]), domain)["at"]
        lines += list(zip(own["variant"], own["active"], places, strict=True))
    return make_frame(lines, ["variant", "active", "at"])


def _spread(names: Sequence[str], accuracies: Sequence[float], domain: Sequence[float]) -> Frame:
    """A place for each name, at its accuracy or as near as leaves room for a line of text; the best first."""
    step = LINE / HEIGHT * (domain[1] - domain[0])
    places: list[float] = []
    for accuracy in accuracies:
        places.append(min(accuracy, places[-1] - step) if places else accuracy)
    # What ran out below is pushed up again, from the last name on.
    floor = domain[0] + step / 2
    for number in reversed(range(len(places))):
        places[number] = max(places[number], floor)
        floor = places[number] + step
    lines = zip(names, places, accuracies, strict=True)
    return make_frame([(*line, 0.78, 0.97) for line in lines], ["variant", "at", "accuracy", "left", "ring"])
