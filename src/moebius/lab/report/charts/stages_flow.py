"""Bands between stages: how rows pass from data sets over classes to experts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from moebius.lab.report.figures import INK
from moebius.lab.report.frames import make_frame

# Pixels: height of all rows together, width of a bar, gap between bars, least height of a bar with its name, width
# from stage to stage, room for names at the right.
ALL_ROWS, BAR, GAP, LEAST, STEP, RIGHT = 260, 9, 4, 14, 190, 130
GREY = "#8a9097"


@dataclass(frozen=True)
class Band:
    """Rows that pass from a node of a stage to a node of the next.

    Arguments:
        stage: number of the first node's stage.
        begin, end: names of the nodes.
        share: of all rows.
    """

    stage: int
    begin: str
    end: str
    share: float


def stages_chart(
    stages: Sequence[Sequence[str]], bands: Sequence[Band], colours: Mapping[str, str], labels: Mapping[str, str]
) -> alt.TopLevelMixin:
    """The chart of all stages from left to right; a band has the colour of its end, or is grey.

    Arguments:
        stages: names of the nodes of each stage, from above.
        bands: between neighbouring stages.
        colours: of nodes by name.
        labels: what is written beside a node, where it is not its name.
    """
    shares = [_node_shares(place, names, bands) for place, names in enumerate(stages)]
    heights = [sum(max(LEAST, share * ALL_ROWS) for share in of.values()) + GAP * (len(of) - 1) for of in shares]
    height, width = max(heights), STEP * (len(stages) - 1) + BAR + RIGHT
    tops: list[dict[str, float]] = []
    bars, texts = [], []
    for place, of_stage in enumerate(shares):
        top, places = (height - heights[place]) / 2, {}
        for name, share in of_stage.items():
            room = max(LEAST, share * ALL_ROWS)
            thickness = max(1.0, share * ALL_ROWS)
            places[name] = top + (room - thickness) / 2
            colour = colours.get(name, GREY) if place == len(stages) - 1 else GREY
            bars.append((place * STEP, place * STEP + BAR, places[name], places[name] + thickness, colour))
            # Names of the stages between stand over the grey bands before them, which cross nothing.
            inside = 0 < place < len(stages) - 1
            x = place * STEP - 5 if inside else place * STEP + BAR + 5
            texts.append((x, top + room / 2, f"{labels.get(name, name)} ({_percent(share)})", inside))
            top += room + GAP
        tops.append(places)
    lines = list(_areas(stages, bands, tops, colours))
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[height, 0], nice=False))
    colour = alt.Color("colour:N", scale=None)
    areas = make_frame(lines, ["band", "colour", "x", "y", "end"])
    blocks = make_frame(bars, ["x", "right", "y", "end", "colour"])
    words = make_frame(texts, ["x", "y", "text", "inside"])
    names = {
        inside: alt.Chart(words[words["inside"] == inside]).encode(x, y, text="text:N") for inside in (False, True)
    }
    layers = [
        alt.Chart(areas).mark_area(opacity=0.32).encode(x, y, alt.Y2("end:Q"), colour, detail="band:N"),
        alt.Chart(blocks).mark_rect().encode(x, alt.X2("right:Q"), y, alt.Y2("end:Q"), colour),
    ]
    for inside, chart in names.items():
        style = {"align": "right" if inside else "left", "baseline": "middle", "fontSize": 11}
        # White below the letters, which stand over bands.
        layers.append(chart.mark_text(**style, color="white", stroke="white", strokeWidth=3))
        layers.append(chart.mark_text(**style, color=INK))
    return alt.layer(*layers).properties(width=width, height=height)


def _node_shares(place: int, names: Sequence[str], bands: Sequence[Band]) -> dict[str, float]:
    coming = {name: sum(band.share for band in bands if band.stage == place - 1 and band.end == name) for name in names}
    going = {name: sum(band.share for band in bands if band.stage == place and band.begin == name) for name in names}
    return {name: max(coming[name], going[name]) for name in names}


def _areas(
    stages: Sequence[Sequence[str]],
    bands: Sequence[Band],
    tops: Sequence[Mapping[str, float]],
    colours: Mapping[str, str],
) -> Iterator[tuple[str, str, float, float, float]]:
    """Points of the outline of each band: its name, its colour, x, and y of both edges."""
    begins, ends = [dict(places) for places in tops], [dict(places) for places in tops]
    order = {name: place for names in stages for place, name in enumerate(names)}
    for band in sorted(bands, key=lambda band: (band.stage, order[band.begin], order[band.end])):
        thickness = band.share * ALL_ROWS
        begin, end = begins[band.stage][band.begin], ends[band.stage + 1][band.end]
        begins[band.stage][band.begin] += thickness
        ends[band.stage + 1][band.end] += thickness
        if thickness < 0.15:
            continue
        left, right = band.stage * STEP + BAR, (band.stage + 1) * STEP
        colour = colours.get(band.end, GREY)
        for number in range(17):
            along = number / 16
            across = along * along * (3 - 2 * along)
            y = begin + across * (end - begin)
            name = f"{band.stage}/{band.begin}/{band.end}"
            yield name, colour, left + along * (right - left), y, y + max(0.4, thickness)


def _percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> _percent(0.123), _percent(0.001), _percent(0.0)
        ('12 %', '<1 %', '0 %')
    """
    return "<1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")
