"""The score by epoch."""

from typing import Any

import altair as alt

from moebius.lab.report.blocks import Block, Heading, Panels, Section
from moebius.lab.report.charts.parts import epoch_axis, score_limits, variant_colour
from moebius.lab.report.figures import HEIGHT, WIDTH, Figure, slug
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import capitalise, rate
from moebius.lab.report.queries import curve_groups, over_seeds, split_untrained
from moebius.lab.report.source import Study

ORDER = 30
SPLITS = ["test", "train"]


def section(study: Study) -> Section | None:
    """For each group of curves in the recipe: the whole curves, and an enlargement of their second half."""
    frame = study.table("epochs", measure=study.score)
    if frame.empty:
        return None
    frame = frame[frame["split"].isin(SPLITS)]
    blocks: list[Block] = []
    taken: set[str] = set()
    groups = curve_groups(study)
    for title, names in groups:
        curves = over_seeds(frame[frame["variant"].isin(names)], ["variant", "split", "epoch"])
        if curves.empty:
            continue
        if title:
            blocks.append(Heading(title))
        name = slug(f"curves {title}" if len(groups) > 1 else "curves", taken)
        blocks.append(Panels(_curve_figures(study, curves, names, title, name)))
    return Section("curves", f"{capitalise(study.measure)} by epoch", blocks) if blocks else None


def _curve_figures(study: Study, frame: Frame, names: list[str], title: str, name: str) -> list[Figure]:
    curves, flat = split_untrained(frame)
    last = int(frame["epoch"].max())
    ends = frame[frame["epoch"] == frame.groupby(["variant", "split"])["epoch"].transform("max")]
    final = "; ".join(f"{row['variant']} {row['split']} {rate(row['mean'])}" for _, row in ends.iterrows())
    seeds = int(frame["count"].max())
    band = f", mean of {seeds} seeds with the range from worst to best" if seeds > 1 else ""
    # Variants that were never trained are horizontal lines. They do not set the range of the enlargement, unless there
    # are no other variants.
    late = curves[curves["epoch"] > last / 2] if len(curves) else flat
    pad = max(float((late["high"] - late["low"].min()).max()) * 0.06, 0.004)
    zoom = (float(late["low"].min()) - pad, float(late["high"].max()) + pad)
    subject = f"{title}: {study.measure}" if title else capitalise(study.measure)
    level = "; a line all across: never trained" if len(flat) and len(curves) else ""
    full = (float(frame["low"].min()), float(frame["high"].max()))
    pad = max((full[1] - full[0]) * 0.04, 0.004)
    return [
        Figure(
            name,
            _curve_chart(study, frame, names, score_limits(study, full, pad)),
            f"{subject} by epoch{band}. Solid: test, at the epoch's end; dashed: train, cumulative over the epoch"
            f"{level}.",
            f"{subject} by epoch {last}, at its end: {final}.",
        ),
        Figure(
            f"{name}-zoom",
            _curve_chart(study, frame, names, zoom),
            f"The same, zoomed to where the curves end up ({rate(zoom[0])} to {rate(zoom[1])}).",
            f"{subject} by epoch, zoomed to {rate(zoom[0])} to {rate(zoom[1])}.",
        ),
    ]


def _curve_chart(study: Study, frame: Frame, names: list[str], limits: tuple[float, float]) -> alt.TopLevelMixin:
    curves, flat = split_untrained(frame)
    curves, flat = (curves, flat) if len(curves) else (flat, curves)
    epochs = int(curves["epoch"].nunique())
    base = alt.Chart(curves)
    x = epoch_axis(curves, 12)
    scale = alt.Scale(domain=list(limits), nice=False, zero=False)
    colour = variant_colour(study, names, symbol="stroke" if epochs > 1 else "circle")
    legend = alt.Legend(title=None)
    if epochs == 1:
        shape = alt.Shape("split:N", sort=SPLITS, legend=legend)
        points = alt.Chart(frame.assign(epoch=curves["epoch"].iloc[0])).mark_point(size=70, strokeWidth=2, clip=True)
        y = alt.Y("mean:Q", scale=scale, title=study.measure)
        return alt.layer(points.encode(x, y, colour, shape)).properties(width=WIDTH, height=HEIGHT)
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=SPLITS, range=[[1, 0], [5, 4]]), legend=legend)
    y = alt.Y("mean:Q", scale=scale, title=study.measure)
    layers: list[Any] = [base.mark_line(strokeWidth=2, clip=True).encode(x, y, colour, dash)]
    single_points = curves[curves.groupby(["variant", "split"])["epoch"].transform("count") == 1]
    if len(single_points):
        layers.append(
            alt.Chart(single_points).mark_point(size=45, filled=True, opacity=1, clip=True).encode(x, y, colour)
        )
    if len(flat):
        layers.append(alt.Chart(flat).mark_rule(strokeWidth=2, clip=True).encode(y, colour, dash))
    if int(curves["count"].max()) > 1:
        area = base.mark_area(opacity=0.15, clip=True)
        low = alt.Y("low:Q", scale=scale, title=study.measure)
        layers.insert(0, area.encode(x, low, alt.Y2("high:Q"), colour, detail="split:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
