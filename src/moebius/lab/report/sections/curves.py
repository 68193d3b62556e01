"""The score and the loss by epoch."""

from typing import Any

import altair as alt

from moebius.lab.report.blocks import Block, Heading, Panels, Section
from moebius.lab.report.charts.multiples import multiples_chart
from moebius.lab.report.charts.parts import epoch_axis, score_limits, variant_colour
from moebius.lab.report.figures import COLOURS, HEIGHT, WIDTH, Figure, slug
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import capitalise, rate
from moebius.lab.report.queries import curve_groups, over_seeds, ranking, split_untrained
from moebius.lab.report.source import Study

ORDER = 30
SPLITS = ["test", "train"]


def section(study: Study) -> Section | None:
    """For each group of curves in the recipe: the score, an enlargement of its second half, and the loss."""
    blocks: list[Block] = []
    taken: set[str] = set()
    groups = curve_groups(study)
    for title, names in groups:
        score, loss = _curves(study, study.score, names), _curves(study, "loss", names)
        if score.empty:
            continue
        if title:
            blocks.append(Heading(title))
        name = slug(f"curves {title}" if len(groups) > 1 else "curves", taken)
        if len(names) > len(COLOURS):
            blocks.append(Panels([_multiples(study, score, study.measure, title, name)]))
            blocks += [] if loss.empty else [Panels([_multiples(study, loss, "loss", title, f"{name}-loss")])]
            continue
        figures = _score_figures(study, score, names, title, name)
        figures += [] if loss.empty else [_whole(study, loss, names, "loss", title, f"{name}-loss")]
        blocks.append(Panels(figures))
    return Section("curves", f"{capitalise(study.measure)} and loss by epoch", blocks) if blocks else None


def _curves(study: Study, measure: str, names: list[str]) -> Frame:
    frame = study.table("epochs", measure=measure)
    if frame.empty:
        return frame
    frame = frame[frame["split"].isin(SPLITS) & frame["variant"].isin(names)]
    return frame if frame.empty else over_seeds(frame, ["variant", "split", "epoch"])


def _score_figures(study: Study, frame: Frame, names: list[str], title: str, name: str) -> list[Figure]:
    curves, flat = split_untrained(frame)
    last = int(frame["epoch"].max())
    # Variants that were never trained are horizontal lines. They do not set the range of the enlargement, unless there
    # are no other variants.
    late = curves[curves["epoch"] > last / 2] if len(curves) else flat
    pad = max(float((late["high"] - late["low"].min()).max()) * 0.06, 0.004)
    zoom = (float(late["low"].min()) - pad, float(late["high"].max()) + pad)
    subject = _subject(study.measure, title)
    return [
        _whole(study, frame, names, study.measure, title, name),
        Figure(
            f"{name}-zoom",
            _curve_chart(study, frame, names, zoom, study.measure),
            f"The same, zoomed to where the curves end up ({rate(zoom[0])} to {rate(zoom[1])}).",
            f"{subject} by epoch, zoomed to {rate(zoom[0])} to {rate(zoom[1])}.",
        ),
    ]


def _whole(study: Study, frame: Frame, names: list[str], measure: str, title: str, name: str) -> Figure:
    """The whole curves of a measure."""
    curves, flat = split_untrained(frame)
    subject, last = _subject(measure, title), int(frame["epoch"].max())
    level = "; a line all across: never trained" if len(flat) and len(curves) else ""
    caption = (
        f"{subject} by epoch{_band_words(frame)}. Solid: test, at the epoch's end; dashed: train, cumulative over the "
        f"epoch{level}."
    )
    chart = _curve_chart(study, frame, names, _limits(study, frame, measure), measure)
    return Figure(name, chart, caption, f"{subject} by epoch {last}, at its end: {_ends(frame)}.")


def _multiples(study: Study, frame: Frame, measure: str, title: str, name: str) -> Figure:
    ranked = [variant for variant, _ in ranking(study)]
    names = sorted(set(frame["variant"]), key=lambda variant: ranked.index(variant) if variant in ranked else 1e9)
    chart = multiples_chart(frame, names, _limits(study, frame, measure), measure, study.baseline)
    mean = f", mean of {int(frame['count'].max())} seeds" if int(frame["count"].max()) > 1 else ""
    subject = _subject(measure, title)
    caption = (
        f"{subject} by epoch{mean}, the best test {study.measure} first. Solid: test; dashed: train; grey: range of "
        f"all variants on test, and {study.baseline}."
    )
    return Figure(name, chart, caption, f"{subject} by epoch, at the end: {_ends(frame)}.")


def _subject(measure: str, title: str) -> str:
    return f"{title}: {measure}" if title else capitalise(measure)


def _band_words(frame: Frame) -> str:
    seeds = int(frame["count"].max())
    return f", mean of {seeds} seeds with the range from worst to best" if seeds > 1 else ""


def _ends(frame: Frame) -> str:
    ends = frame[frame["epoch"] == frame.groupby(["variant", "split"])["epoch"].transform("max")]
    return "; ".join(f"{row['variant']} {row['split']} {rate(row['mean'])}" for _, row in ends.iterrows())


def _limits(study: Study, frame: Frame, measure: str) -> tuple[float, float]:
    low, high = float(frame["low"].min()), float(frame["high"].max())
    pad = max((high - low) * 0.04, 0.004)
    if measure == study.measure:
        return score_limits(study, (low, high), pad)
    # One loss that explodes would leave the others a flat line.
    top = float(frame["high"].quantile(0.98)) if len(frame) > 50 else high
    return low - pad, top + pad


def _curve_chart(
    study: Study, frame: Frame, names: list[str], limits: tuple[float, float], measure: str
) -> alt.TopLevelMixin:
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
        y = alt.Y("mean:Q", scale=scale, title=measure)
        return alt.layer(points.encode(x, y, colour, shape)).properties(width=WIDTH, height=HEIGHT)
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=SPLITS, range=[[1, 0], [5, 4]]), legend=legend)
    y = alt.Y("mean:Q", scale=scale, title=measure)
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
        low = alt.Y("low:Q", scale=scale, title=measure)
        layers.insert(0, area.encode(x, low, alt.Y2("high:Q"), colour, detail="split:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
