"""Figures: an altair chart with its name, caption and alternative text; `render` draws it as SVG and PNG."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

# Okabe and Ito's colours without yellow, which is hard to see on white, then Tol's muted ones.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
    "#882255", "#999933", "#44AA99", "#332288", "#888888",
)  # fmt: skip
WIDTH, HEIGHT = 330, 230
PNG_SCALE = 2.5
# Longest text of a drawing in pixels; the rest is cut, and stands in the tables.
TEXT_LIMIT = 700
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
INK, GRID, MUTED, REST = "#222222", "#e4e4e4", "#777777", "#b4b9be"


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Arguments:
        name: name of its files, without suffix; unique in a report.
        chart: the drawing.
        caption: the line below it: what it shows and how to read it.
        alt: description for readers who cannot see it, with the main numbers.
        tall: whether several other figures may stand one below the other beside it.
    """

    name: str
    chart: alt.TopLevelMixin
    caption: str
    alt: str
    tall: bool = False


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name; of more names than the palette has, the first ones have its colours, the others are grey.

    Example:
        >>> palette = colours([str(place) for place in range(14)])
        >>> palette["10"], palette["11"], palette["13"]
        ('#332288', '#b4b9be', '#b4b9be')
    """
    distinct = COLOURS if len(names) <= len(COLOURS) else COLOURS[:-1]
    return {name: distinct[place] if place < len(distinct) else REST for place, name in enumerate(names)}


def slug(text: str, taken: set[str] | None = None) -> str:
    """A file name for a text: lower case, hyphens for other characters, and a number if the name is in `taken`.

    The name is added to `taken`.

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
    svg = _rename_ids(vl_convert.vegalite_to_svg(_themed_specification(figure.chart)), figure.name)
    return svg, vl_convert.svg_to_png(svg, scale=PNG_SCALE)


def _rename_ids(svg: str, name: str) -> str:
    # vl-convert numbers ids over all drawings of a process. Numbering them again makes the same figure the same bytes;
    # prefixing the figure's name keeps the clips and gradients of two figures on one page apart.
    numbers: dict[str, int] = {}
    return re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)',
        lambda match: f"{match[1]}{name}-{numbers.setdefault(match[2], len(numbers))}",
        svg,
    )


def _themed_specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    # altair validates every part when it is built. Validating the whole again would take a tenth of the drawing time.
    specification = chart.to_dict(validate=False)
    specification["background"] = "white"
    specification["config"] = THEME
    return specification


# The look of all drawings, as a configuration of Vega-Lite.
THEME: dict[str, Any] = {
    # The page labels every figure as a whole: a label on each mark would double the page's size.
    "aria": False,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
        "gridColor": GRID, "domainColor": "#888888", "tickColor": "#888888", "labelLimit": 150, "titlePadding": 8,
        "titleLimit": TEXT_LIMIT,
    },
    "legend": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
        "orient": "bottom", "labelLimit": 170, "symbolStrokeWidth": 2.5, "symbolSize": 180, "columnPadding": 14,
        "titleLimit": TEXT_LIMIT,
    },
    "header": {
        "labelFontSize": 12, "titleFontSize": 12, "labelColor": INK, "titleColor": INK, "labelPadding": 4,
        "labelLimit": TEXT_LIMIT, "titleLimit": TEXT_LIMIT,
    },
    "title": {
        "fontSize": 13, "fontWeight": "bold", "color": INK, "anchor": "start", "offset": 10, "limit": TEXT_LIMIT,
    },
    "text": {"limit": TEXT_LIMIT},
    "facet": {"spacing": 14},
}  # fmt: skip
