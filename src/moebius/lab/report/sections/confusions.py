"""Confusion matrices, overall and per expert."""

import altair as alt

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Text
from moebius.lab.report.figures import WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.sections._names import expert_label, expert_names
from moebius.lab.report.sections._shared import SHADES, file_of, gates_with, variant_slugs
from moebius.lab.report.source import Study

ORDER = 80
SHOWN = 4


def section(study: Study) -> Section | None:
    """Test confusion of each variant over all seeds, and over the images each expert of the first seed wins."""
    frame = study.table("confusion", split="test")
    if frame.empty:
        return None
    names = variant_slugs(study)
    several = {variant for variant, gate in gates_with(study, "load") if gate == "root"}
    blocks: list[Block] = [
        Text(
            "Test images, share of each true class. The colour scale is stretched at its low end (square root), so "
            "that errors show."
        )
    ]
    overall: list[Figure] = []
    for variant in study.variants:
        own = frame[frame["variant"] == variant]
        if len(own):
            overall.append(_overall(study, own, f"confusion-{names[variant]}", variant))
    blocks.append(Panels(overall))
    each = study.table("expert_confusion", split="test", gate="root")
    if several and len(each):
        blocks += [
            Heading("Per expert"),
            Text(
                "Over the test images whose largest gate weight is the expert's, in the first seed. Of many experts the"
                f" {SHOWN} that win most images are drawn; tables/expert_confusion.csv has all."
            ),
        ]
    for variant in study.variants:
        own = each[(each["variant"] == variant)] if len(each) else each
        if variant in several and len(own):
            own = own[own["seed"] == own["seed"].min()]
            blocks.append(
                Details(f"{variant}: confusion per expert", [Panels(_experts(study, own, variant, names[variant]))])
            )
    return Section("confusion", "Confusion", blocks)


def _overall(study: Study, own: Frame, name: str, variant: str) -> Figure:
    seeds = own["seed"].nunique()
    summed = own.groupby(["label", "prediction"], sort=False, as_index=False)["rows"].sum()
    of = f"{variant}, all {seeds} seeds together" if seeds > 1 else variant
    return _figure(study, summed, name, of)


def _experts(study: Study, own: Frame, variant: str, name: str) -> list[Figure]:
    won = own.groupby("expert")["rows"].sum().sort_values(ascending=False)
    total = int(won.sum())
    made, names = [], expert_names(study, variant)
    for expert in sorted(won.index[:SHOWN]):
        share = rate(float(won[expert] / total))
        title = f"{variant}, {expert_label(names, expert)}, which wins {share} of the test images"
        made.append(
            _figure(study, own[own["expert"] == expert], file_of(f"confusion-expert-{expert}", name, "root"), title)
        )
    return made


def _figure(study: Study, own: Frame, name: str, title: str) -> Figure:
    classes = list(study.classes)
    cell = max(3.0, min(17.0, WIDTH / len(classes)))
    share = own["rows"] / own.groupby("label")["rows"].transform("sum")
    frame = own.assign(share=share)
    readable = cell >= 8
    axis = alt.Axis(
        ticks=False, domain=False, labelFontSize=min(11, cell - 1), labels=readable, labelLimit=130, grid=False
    )
    turned = alt.Axis(
        ticks=False,
        domain=False,
        labelFontSize=min(11, cell - 1),
        labels=readable,
        labelLimit=130,
        labelAngle=-90,
        grid=False,
    )
    legend = alt.Legend(title="share of the true class", gradientLength=WIDTH / 2)
    chart = (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            alt.X("prediction:N", title="predicted", scale=alt.Scale(domain=classes), axis=turned),
            alt.Y("label:N", title="true", scale=alt.Scale(domain=classes), axis=axis),
            alt.Color("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=SHADES), legend=legend),
        )
        .properties(width=cell * len(classes), height=cell * len(classes), view=alt.ViewConfig(stroke="#bbbbbb"))
    )
    wrong = frame[frame["label"] != frame["prediction"]].nlargest(3, "share")
    most = "; ".join(f"{row['label']} as {row['prediction']} {rate(row['share'])}" for _, row in wrong.iterrows())
    right = float(frame.loc[frame["label"] == frame["prediction"], "rows"].sum() / frame["rows"].sum())
    caption = f"{title}: accuracy {rate(right)}." + (f" Most mistaken: {most}." if most else "")
    return Figure(name, chart, caption, f"Confusion matrix of {caption}")
