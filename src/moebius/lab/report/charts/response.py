"""How a score answers to swept values: against one key with intervals, or against two as a map."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.charts.parts import SHADES
from moebius.lab.report.figures import HEIGHT, WIDTH
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.points import SweptPoint, value_words

# Fractions this many times as large as others, such as rates, belong on a logarithmic axis.
WIDE = 8
CHOSEN = "#D55E00"
PLAIN = "#0072B2"
# A map with at most so many cells a side has numbers in them.
LEGIBLE = 8


def key_chart(
    points: Sequence[SweptPoint], key: str, chosen: SweptPoint | None, title: str, log: bool, beside: str | None = None
) -> alt.TopLevelMixin:
    """The score against one key: a point with its interval over seeds for each, the chosen one in orange.

    Arguments:
        points: those that are drawn; each has a score.
        key: the swept key of the axis.
        chosen: the point that held-out rows have chosen.
        title: of the axis of scores.
        log: whether the recipe spreads the key's values on a logarithmic scale.
        beside: a second key, whose values lines join; None to join all points where no other key differs.
    """
    frame = _frame(points, [key, *([beside] if beside else [])], chosen)
    numeric = is_numeric([point.values[key] for point in points])
    x = _value_axis(points, key, log, grid=False)
    low, high = float(frame["mean"].min()), float(frame["mean"].max())
    reach = max(high - low, 0.02)
    bars = frame[frame["low"].notna()]
    ends = [low, high, *(end for end in (*bars["low"], *bars["high"]) if low - reach < end < high + reach)]
    scale = alt.Scale(domain=[min(ends) - 0.1 * reach, max(ends) + 0.1 * reach], nice=False, zero=False)
    y = alt.Y("mean:Q", title=title, scale=scale)
    layers: list[Any] = []
    colour: Any = alt.ColorValue(PLAIN)
    if beside:
        order = _order(points, beside)
        palette = alt.Scale(domain=order, range=_shades(len(order)))
        colour = alt.Color("beside:N", scale=palette, legend=alt.Legend(title=beside, columns=4, symbolType="stroke"))
    if numeric and (beside or len(points[0].values) == 1):
        layers.append(alt.Chart(frame).mark_line(strokeWidth=1.5, clip=True).encode(x, y, colour))
    if len(bars):
        rules = alt.Chart(bars).mark_rule(strokeWidth=1.5, opacity=0.7, clip=True)
        layers.append(rules.encode(x, alt.Y("low:Q", scale=scale), alt.Y2("high:Q"), colour))
    layers.append(alt.Chart(frame).mark_point(size=45, filled=True, opacity=1, clip=True).encode(x, y, colour))
    best = frame[frame["chosen"]]
    if len(best):
        mark = alt.Chart(best).mark_point(size=110, filled=True, opacity=1, shape="diamond", color=CHOSEN)
        layers.append(mark.encode(x, y))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def map_chart(
    points: Sequence[SweptPoint],
    keys: tuple[str, str],
    chosen: SweptPoint | None,
    title: str,
    logs: tuple[bool, bool],
    is_grid: bool,
) -> alt.TopLevelMixin:
    """The score against two keys: a cell for each pair of a grid, else a dot; the chosen one has an orange edge."""
    frame = _frame(points, list(keys), chosen)
    low, high = float(frame["mean"].min()), float(frame["mean"].max())
    scale = alt.Scale(domain=[low, max(high, low + 1e-9)], range=SHADES)
    legend = alt.Legend(title=title, gradientLength=WIDTH / 2, format=".3f", tickCount=3)
    colour = alt.Color("mean:Q", scale=scale, legend=legend)
    best = frame[frame["chosen"]]
    if not is_grid:
        x, y = (
            _value_axis(points, keys[0], logs[0]),
            _value_axis(points, keys[1], logs[1], vertical=True, name="beside"),
        )
        dots = alt.Chart(frame).mark_point(size=130, filled=True, opacity=1, stroke="#888888", strokeWidth=0.5)
        ring = alt.Chart(best).mark_point(size=190, filled=False, opacity=1, stroke=CHOSEN, strokeWidth=2.5)
        return alt.layer(dots.encode(x, y, colour), ring.encode(x, y)).properties(width=WIDTH, height=WIDTH * 0.8)
    across, down = _order(points, keys[0]), _order(points, keys[1])
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0 if max(map(len, across)) * len(across) < 42 else -90)
    x = alt.X("text:N", sort=across, title=keys[0], axis=axis)
    y = alt.Y("beside:N", sort=down[::-1], title=keys[1], axis=alt.Axis(ticks=False, domain=False))
    base = alt.Chart(frame).encode(x, y)
    layers: list[Any] = [base.mark_rect().encode(colour)]
    if max(len(across), len(down)) <= LEGIBLE:
        edge = low + 0.55 * (high - low)
        dark = alt.condition(f"datum.mean > {edge}", alt.value("white"), alt.value("black"))
        layers.append(base.mark_text(fontSize=11).encode(text="score:N", color=dark))
    layers.append(alt.Chart(best).mark_rect(filled=False, stroke=CHOSEN, strokeWidth=3).encode(x, y))
    return alt.layer(*layers).properties(width=WIDTH - 40, height=max(130, min(34 * len(down), 420)))


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all values are numbers, of which there are several."""
    return len(set(map(str, values))) > 1 and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )


def _frame(points: Sequence[SweptPoint], keys: Sequence[str], chosen: SweptPoint | None) -> Frame:
    lines = []
    for point in points:
        assert point.estimate is not None
        values = [point.values[key] for key in keys]
        lead = {name: value for name, value in zip(("x", "y"), values, strict=False) if is_number(value)}
        texts = dict(zip(("text", "beside"), map(value_words, values), strict=False))
        scores = {"mean": point.estimate.mean, "low": point.estimate.low, "high": point.estimate.high}
        lines.append({**lead, **texts, **scores, "score": rate(point.estimate.mean), "chosen": point is chosen})
    frame = make_frame(lines)
    return frame.assign(low=frame["low"].astype(float), high=frame["high"].astype(float))


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(points: Sequence[SweptPoint], key: str) -> list[str]:
    values = [point.values[key] for point in points]
    if all(map(is_number, values)):
        values = sorted(values)
    return list(dict.fromkeys(map(value_words, values)))


def _value_axis(
    points: Sequence[SweptPoint], key: str, log: bool, grid: bool = True, vertical: bool = False, name: str = "text"
) -> Any:
    values = [point.values[key] for point in points]
    channel = alt.Y if vertical else alt.X
    if not is_numeric(values):
        order = _order(points, key)
        angle = 0 if max(map(len, order)) * len(order) < 46 or vertical else -90
        return channel(f"{name}:N", sort=order, title=key, axis=alt.Axis(labelAngle=angle, grid=False))
    smallest, largest = min(values), max(values)
    fractions = any(isinstance(value, float) for value in values)
    if smallest > 0 and (log or (fractions and largest / smallest >= WIDE)):
        scale = alt.Scale(type="log", domain=[smallest / 1.25, largest * 1.25], nice=False)
    else:
        scale = alt.Scale(zero=False, nice=False, padding=14)
    places: Mapping[str, Any] = {"values": sorted(set(values))} if len(set(values)) <= 7 else {"tickCount": 5}
    axis = alt.Axis(grid=grid, format="~g", labelOverlap=True, **places)
    return channel(f"{'y' if name == 'beside' else 'x'}:Q", title=key, axis=axis, scale=scale)


def _shades(count: int) -> list[str]:
    """Colours from light to dark for values in order."""
    shades = ["#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"]
    if count == 1:
        return [PLAIN]
    return [shades[min(len(shades) - 1, place * (len(shades) - 1) // (count - 1))] for place in range(count)]
