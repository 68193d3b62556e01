"""Heat maps of experts side by side on one scale: how much each group uses an expert, and how good that expert is."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Bool, Float

from moebius.lab.report.charts.parts import ORANGES, SHADES
from moebius.lab.report.figures import INK
from moebius.lab.report.frames import make_frame

# Equal values, as they are printed.
TIE = 0.0005
# Up to this number, cells hold their value.
WRITTEN = 8
HEIGHT, GAP = 17, 16
# Seen on white and on dark blue.
FRAME = "#D55E00"


def row_tops(values: Float[np.ndarray, "G E"]) -> Bool[np.ndarray, "G E"]:
    """Which cells have the largest value of their line; all of those that tie.

    Example:
        >>> row_tops(np.array([[0.5, 0.5, 0.0], [0.1, np.nan, 0.9]])).tolist()
        [[True, True, False], [False, False, True]]
    """
    filled = np.where(np.isfinite(values), values, -np.inf)
    return (filled >= filled.max(1, keepdims=True) - TIE) & np.isfinite(values)


def expert_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "G E"], Bool[np.ndarray, "G E"]]],
    groups: Sequence[str],
    experts: Sequence[str],
    title: str,
) -> alt.TopLevelMixin:
    """A heat map for each entry, with the same colours from 0 to 1.

    Arguments:
        maps: heading → values, NaN for none; and which of them are framed.
        groups: names of the lines.
        experts: names of the columns.
        title: of the scale.
    """
    low = min(float(np.nanmin(values)) for values, _ in maps.values())
    scale = alt.Scale(domain=[0, 1], range=SHADES, clamp=True)
    if low < -TIE:
        scale = alt.Scale(domain=[-1, 1], range=[*reversed(ORANGES), *SHADES], clamp=True, interpolate="rgb")
    longest = max(map(len, experts))
    width = 30 if len(experts) <= WRITTEN else 15
    angle = 0 if longest <= (4 if len(experts) <= WRITTEN else 2) else -90
    charts = []
    for place, (heading, (values, tops)) in enumerate(maps.items()):
        lines = [
            (group, expert, float(values[row, column]), _two_digits(values[row, column]), bool(tops[row, column]))
            for row, group in enumerate(groups)
            for column, expert in enumerate(experts)
            if np.isfinite(values[row, column])
        ]
        frame = make_frame(lines, ["group", "expert", "value", "text", "top"])
        labels: dict[str, Any] = {"ticks": False, "domain": False, "grid": False}
        x_axis = alt.Axis(orient="top", labelAngle=angle, labelFontSize=11, labelLimit=110, **labels)
        y_axis = alt.Axis(labels=place == 0, labelLimit=130, labelFontSize=11, **labels)
        x = alt.X("expert:N", sort=list(experts), title=None, axis=x_axis, scale=alt.Scale(domain=list(experts)))
        y = alt.Y("group:N", sort=list(groups), title=None, axis=y_axis, scale=alt.Scale(domain=list(groups)))
        legend = alt.Legend(title=title, gradientLength=160, orient="bottom") if place == 0 else None
        colour = alt.Color("value:Q", scale=scale, legend=legend)
        layers = [
            alt.Chart(frame).mark_rect().encode(x, y, colour),
            alt.Chart(frame[frame["top"]]).mark_rect(fill=None, stroke=FRAME, strokeWidth=1.6).encode(x, y),
        ]
        if len(experts) <= WRITTEN:
            dark = alt.condition("abs(datum.value) > 0.55", alt.value("white"), alt.value(INK))
            layers.append(alt.Chart(frame).mark_text(fontSize=10).encode(x, y, text="text:N", color=dark))
        heading_style = alt.TitleParams(heading, anchor="start", fontSize=12, fontWeight="bold", offset=6)
        size = {"width": width * len(experts), "height": HEIGHT * len(groups)}
        charts.append(alt.layer(*layers).properties(title=heading_style, **size))
    return alt.hconcat(*charts, spacing=GAP).resolve_scale(color="shared")


def _two_digits(value: float) -> str:
    """A value in a cell.

    Example:
        >>> _two_digits(0.456), _two_digits(1.0), _two_digits(0.001), _two_digits(-0.2)
        ('.46', '1', '0', '−.20')
    """
    if abs(value) < 0.005:
        return "0"
    text = f"{abs(value):.2f}"
    return ("−" if value < 0 else "") + ("1" if text == "1.00" else text.removeprefix("0"))
