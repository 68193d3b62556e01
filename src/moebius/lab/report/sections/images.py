"""What single images do: histograms of gate weights and entropies."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from moebius.lab.report.blocks import Block, Heading, Panels, Section, Table, Text
from moebius.lab.report.figures import COLOURS, WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.sections._names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.sections._shared import FEW, SHADES, axis_steps, file_of, gates_with, variant_slugs
from moebius.lab.report.source import Study

ORDER = 60
GAP = 14


def section(study: Study) -> Section | None:
    """Does one image use one expert? The mean activation hides it, these do not."""
    pairs = gates_with(study, "weight_histogram")
    if not pairs:
        return None
    names = variant_slugs(study)
    blocks: list[Block] = [
        Text(
            "An expert with a rate of .5 may share every image, or own every second one. Here each test image counts "
            "by itself: weights at 0 and 1, and entropies at 0, mean that one image uses one expert. Entropies are in "
            "nats; in brackets the number of experts that, used alike, have that entropy."
        ),
        _table(study, pairs),
    ]
    for variant, gate in pairs:
        seed = study.seeds_of(variant)[0]
        where = {"variant": variant, "gate": gate, "seed": seed, "split": "test"}
        weights, entropies = study.table("weight_histogram", **where), study.table("entropy_histogram", **where)
        if weights.empty:
            continue
        whole = title_of(study, variant, gate)
        title = f"{whole}, seed {seed}"
        figures = [
            _weights(weights, expert_names(study, variant, gate), file_of("weights", names[variant], gate), title),
            _entropies(entropies, file_of("entropies", names[variant], gate), title),
        ]
        blocks += [Heading(whole), Panels(figures)]
    return Section("images", "Does one image use one expert?", blocks)


def _table(study: Study, pairs: list[tuple[str, str]]) -> Table:
    frame = study.table("entropy", split="test")
    rows = []
    for variant, gate in pairs:
        own = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
        numbers = [f"{own[column].mean():.2f}" for column in ("row", "marginal", "row_experts", "effective_experts")]
        title = title_of(study, variant, gate)
        rows.append([title, str(own["experts"].iloc[0]), rate(own["largest_weight"].mean()), *numbers])
    columns = ["gate", "experts", "largest weight, median image", "entropy of an image", "entropy of the mean"]
    columns += ["effective experts of an image", "effective experts over all"]
    return Table("Test images, means over seeds; entropies in nats", columns, rows)


def _weights(frame: Frame, names: Sequence[str] | None, name: str, title: str) -> Figure:
    domains = list(dict.fromkeys(frame["group"]))
    columns = min(len(domains), 2)
    width = (WIDTH - GAP * (columns - 1)) / columns
    experts = int(frame["expert"].max()) + 1
    ticks = alt.Axis(values=[0, 0.5, 1], grid=False) if frame["high"].max() <= 1 else alt.Axis(grid=False, tickCount=4)
    x = alt.X("low:Q", bin="binned", title="gate weight of an image", axis=ticks, scale=alt.Scale(nice=False))
    if experts <= FEW:
        shown = frame.assign(label=[expert_label(names, expert) for expert in frame["expert"]])
        order = [expert_label(names, expert) for expert in range(experts)]
        y = alt.Y("share:Q", title="share of images", axis=alt.Axis(tickCount=3, format=".1~f"))
        bars = alt.Chart(shown).mark_bar(binSpacing=0.5, color=COLOURS[0]).encode(x, alt.X2("high:Q"), y)
        column = alt.Column("group:N", sort=domains, title=None)
        row = alt.Row(
            "label:N",
            sort=order,
            title=None,
            header=alt.Header(
                labelAngle=0, labelOrient="top", labelAnchor="start", labelFontWeight="bold", labelPadding=2
            ),
        )
        chart = bars.properties(width=width - 20, height=110 if experts <= 2 else 80).facet(column=column, row=row)
    else:
        legend = alt.Legend(title="share of images", gradientLength=WIDTH / 2)
        scale = alt.Scale(type="sqrt", domain=[0, 1], range=SHADES)
        shown, order = with_labels(frame, names)
        y = alt.Y("expert:O", axis=alt.Axis(values=axis_steps(experts), ticks=False, domain=False))
        if names:
            y = alt.Y("named:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=110))
        colour = alt.Color("share:Q", scale=scale, legend=legend)
        cells = alt.Chart(shown).mark_rect().encode(x, alt.X2("high:Q"), y, colour)
        chart = cells.properties(width=width, height=max(120, 12 * experts)).facet(
            alt.Facet("group:N", sort=domains, title=None), columns=columns
        )
    caption = f"{title}: gate weights of single test images, by data set."
    # The outer bins say whether an image is given or refused whole.
    outer = frame[(frame["low"] < 0.05) | (frame["high"] > 0.95)].groupby("group", sort=False)["rows"].sum()
    total = frame.groupby("group", sort=False)["rows"].sum()
    said = "; ".join(f"{group} {rate(float(outer.get(group, 0) / total[group]))}" for group in domains)
    return Figure(name, chart, caption, f"{caption} Share of weights below .05 or above .95: {said}.")


def _entropies(frame: Frame, name: str, title: str) -> Figure:
    domains = list(dict.fromkeys(frame["group"]))
    top = float(frame["high"].max())
    labels = alt.Axis(
        grid=False,
        values=[float(value) for value in np.linspace(0, top, 3)],
        labelExpr="[format(datum.value, '.2f'), '(' + format(exp(datum.value), '.2~f') + ')']",
        labelFlush=False,
    )
    x = alt.X("low:Q", bin="binned", title="entropy of an image in nats (effective experts)", axis=labels)
    y = alt.Y("share:Q", title="share of images", axis=alt.Axis(tickCount=4, format=".2~f"))
    bars = alt.Chart(frame).mark_bar(binSpacing=0.5, color=COLOURS[2]).encode(x, alt.X2("high:Q"), y)
    one_column = alt.Facet("group:N", sort=domains, title=None)
    chart = bars.properties(width=WIDTH, height=110).facet(one_column, columns=1)
    means = [
        f"{group} {(own['share'] * (own['low'] + own['high']) / 2).sum():.2f}"
        for group, own in frame.groupby("group", sort=False)
    ]
    caption = f"{title}: entropies of single test images, by data set; the axis ends where all experts are used alike."
    return Figure(name, chart, caption, f"{caption} Mean in nats: {'; '.join(means)}.")
