"""Figures: an altair chart with its name, caption and alternative text, and how it becomes SVG and PNG."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

# Okabe and Ito's colours without the yellow, which white paper swallows, then Tol's muted ones.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
    "#882255", "#999933", "#44AA99", "#332288", "#888888",
)  # fmt: skip
WIDTH, HEIGHT = 330, 230
PNG_SCALE = 2.5
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
INK, GRID = "#222222", "#e4e4e4"


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Arguments:
        name: of its files, without suffix.
        chart: what to draw.
        caption: what the reader should know to read it.
        alt: the picture in words, with its main figures.
        tall: leave the place beside it to more than one other figure.
    """

    name: str
    chart: alt.TopLevelMixin
    caption: str
    alt: str
    tall: bool = False


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure of a report.

    Beyond the palette, colours repeat: no eye tells thirteen apart, so figures with so many lines need other means.
    """
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def slug(text: str, taken: set[str] | None = None) -> str:
    """A file name for a text, different from those taken (and then taken itself).

    Example:
        >>> slug("Top-2 <gate> / β"), slug("a b", {"a-b"})
        ('top-2-gate', 'a-b-2')
    """
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"
    name, number = base, 2
    while taken is not None and name in taken:
        name, number = f"{base}-{number}", number + 1
    if taken is not None:
        taken.add(name)
    return name


def render(figure: Figure) -> tuple[str, bytes]:
    """A figure as SVG text and as PNG at two and a half times its size."""
    svg = _own_ids(vl_convert.vegalite_to_svg(_themed(figure.chart)), figure.name)
    return svg, vl_convert.svg_to_png(svg, scale=PNG_SCALE)


def _own_ids(svg: str, name: str) -> str:
    # The drawing library counts ids over all drawings of a process: numbered anew, the same figure gives the same
    # bytes; with the figure's name before, two on one page do not clip and shade by each other's.
    numbers: dict[str, int] = {}
    return re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)',
        lambda match: f"{match[1]}{name}-{numbers.setdefault(match[2], len(numbers))}",
        svg,
    )


def _themed(chart: alt.TopLevelMixin) -> dict[str, Any]:
    # Every part was validated when it was built; doing it again for the whole takes a tenth of the drawing.
    specification = chart.to_dict(validate=False)
    specification["background"] = "white"
    specification["config"] = _THEME
    return specification


_THEME: dict[str, Any] = {
    # The page gives every figure its own label: one on each mark would double the page's size.
    "aria": False,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
        "gridColor": GRID, "domainColor": "#888888", "tickColor": "#888888", "labelLimit": 150, "titlePadding": 8,
    },
    "legend": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
        "orient": "bottom", "labelLimit": 170, "symbolStrokeWidth": 2.5, "symbolSize": 180, "columnPadding": 14,
    },
    "header": {"labelFontSize": 12, "titleFontSize": 12, "labelColor": INK, "titleColor": INK, "labelPadding": 4},
    "title": {"fontSize": 13, "fontWeight": "bold", "color": INK, "anchor": "start", "offset": 10},
    "facet": {"spacing": 14},
}  # fmt: skip
