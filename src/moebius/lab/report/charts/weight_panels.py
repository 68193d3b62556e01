"""Small histograms of the largest weight of a row, one for each variant, on common axes."""

import altair as alt

from moebius.lab.report.figures import COLOURS
from moebius.lab.report.frames import Frame

COLUMNS, WIDTH, HEIGHT = 4, 150, 80


def weight_panels(frame: Frame, order: list[str]) -> alt.TopLevelMixin:
    """The panels of a frame with the columns title, low, high and share.

    Arguments:
        frame: the bins of each panel.
        order: titles, in the order of reading.
    """
    x = alt.X(
        "low:Q",
        bin="binned",
        title="largest weight of a row",
        axis=alt.Axis(values=[0, 0.5, 1], grid=False, format="~f"),
        scale=alt.Scale(domain=[0, 1], nice=False),
    )
    y = alt.Y(
        "share:Q",
        title="share of rows",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[0, 0.5, 1], format="~f"),
    )
    bars = alt.Chart(frame).mark_bar(binSpacing=0.5, color=COLOURS[0]).encode(x, alt.X2("high:Q"), y)
    header = alt.Header(labelLimit=WIDTH, labelFontWeight="bold", labelAnchor="start")
    columns = min(COLUMNS, len(order))
    return bars.properties(width=WIDTH, height=HEIGHT).facet(
        alt.Facet("title:N", sort=order, title=None, header=header), columns=columns
    )
