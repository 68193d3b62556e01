"""The confusion matrix: which class is taken for which."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import check_indices, whole_counts
from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Text
from moebius.lab.report.charts.parts import SHADES
from moebius.lab.report.expert_names import expert_label, expert_names
from moebius.lab.report.figures import WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.numbers import rate
from moebius.lab.report.queries import at_first_gates, figure_name, gates_with
from moebius.lab.report.shown_variants import DRAWN, others_text, shown_variants, undrawn_text
from moebius.lab.report.source import Study

ORDER = 80
# Of a gate with more experts, the matrices of those that win most rows are drawn.
SHOWN = 4


def confusion(
    labels: Int[np.ndarray, " T"],
    predictions: Int[np.ndarray, " T"],
    names: Sequence[str],
    parts: Float[np.ndarray, " T"] | None = None,
) -> pd.DataFrame:
    """How many rows of each class are predicted as each class.

    rows(c, d) = |{x: label c, prediction d}|;  share(c, d) = rows(c, d) / Σ_d rows(c, d), so that share(c, c) is recall

    Arguments:
        labels: true classes, as indices into `names`.
        predictions: predicted classes.
        names: names of the classes.
        parts: how much of each row counts, 0 … 1; None for all of it.

    Returns:
        Columns label, prediction, rows, share, for the pairs that occur, ordered by class.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])["share"].tolist()
        [0.5, 0.5, 1.0]

    Reference: ours.
    """
    classes = len(names)
    check_indices(labels, names, "labels")
    check_indices(predictions, names, "predictions")
    counts = np.bincount(labels * classes + predictions, parts, minlength=classes * classes)
    rows_CC = whole_counts(counts).reshape(classes, classes)
    label, prediction = np.nonzero(rows_CC)
    rows = rows_CC[label, prediction]
    class_names = np.asarray(names, dtype=object)
    return pd.DataFrame(
        {
            "label": class_names[label],
            "prediction": class_names[prediction],
            "rows": rows,
            "share": rows / rows_CC.sum(1)[label],
        }
    )


def split_table(rows: SplitRows) -> Frame | None:
    """The confusion of the whole model over the split; None where rows have no class."""
    if not rows.class_names:
        return None
    return confusion(rows.labels, rows.predictions, rows.class_names)


def section(study: Study) -> Section | None:
    """Test confusion of each variant over all seeds, then of the rows that each expert wins in the first seed."""
    frame = study.table("confusion", split="test")
    if frame.empty:
        return None
    mixtures = {variant: gate for variant, gate in gates_with(study, "load") if gate == study.first_gate(variant)}
    variants = list(dict.fromkeys(frame["variant"]))
    drawn = shown_variants(study, variants, DRAWN)
    text = (
        "Test rows, share of each true class. The colour scale is stretched at its low end (square root), so that "
        "errors show."
    )
    overall = [_overall_figure(study, frame[frame["variant"] == variant], variant) for variant in drawn]
    blocks: list[Block] = [
        Text(f"{text}{undrawn_text(variants, drawn, 'tables/confusion.csv')}"),
        Panels(overall),
    ]
    shown = shown_variants(study, mixtures)
    per_expert = at_first_gates(study, study.table("expert_confusion", split="test"))
    if mixtures and len(per_expert):
        blocks += [
            Heading("Per expert"),
            Text(
                "Over the test rows whose largest gate weight is the expert's (a tie is divided), in the first seed."
                " Of many experts the"
                f" {SHOWN} that win most rows are drawn; tables/expert_confusion.csv has all."
                f"{others_text(mixtures, shown, 'that table')}"
            ),
        ]
    for variant in shown if len(per_expert) else ():
        gate = mixtures[variant]
        counts = per_expert[per_expert["variant"] == variant]
        if len(counts):
            first_seed = counts[counts["seed"] == counts["seed"].min()]
            figures = _expert_figures(study, first_seed, variant, gate)
            blocks.append(Details(f"{variant}: confusion per expert", [Panels(figures)]))
    return Section("confusion", "Confusion", blocks)


def _overall_figure(study: Study, counts: Frame, variant: str) -> Figure:
    seeds = counts["seed"].nunique()
    summed = counts.groupby(["label", "prediction"], sort=False, as_index=False)["rows"].sum()
    title = f"{variant}, all {seeds} seeds together" if seeds > 1 else variant
    return _matrix_figure(study, summed, figure_name(study, "confusion", variant), title)


def _expert_figures(study: Study, counts: Frame, variant: str, gate: str) -> list[Figure]:
    won = counts.groupby("expert")["rows"].sum().sort_values(ascending=False)
    total = float(won.sum())
    figures, names = [], expert_names(study, variant, gate)
    for expert in sorted(won.index[:SHOWN]):
        share = rate(float(won[expert] / total))
        title = f"{variant}, {expert_label(names, expert)}, which wins {share} of the test rows"
        name = figure_name(study, f"confusion-expert-{expert}", variant)
        figures.append(_matrix_figure(study, counts[counts["expert"] == expert], name, title))
    return figures


def _matrix_figure(study: Study, counts: Frame, name: str, title: str) -> Figure:
    classes = list(study.classes)
    cell = max(3.0, min(17.0, WIDTH / len(classes)))
    share = counts["rows"] / counts.groupby("label")["rows"].transform("sum")
    frame = counts.assign(share=share)
    readable = cell >= 8
    style: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelLimit": 130}
    style |= {"labelFontSize": min(11, cell - 1), "labels": readable}
    scale = alt.Scale(domain=classes)
    legend = alt.Legend(title="share of the true class", gradientLength=WIDTH / 2)
    chart = (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            alt.X("prediction:N", title="predicted", scale=scale, axis=alt.Axis(**style, labelAngle=-90)),
            alt.Y("label:N", title="true", scale=scale, axis=alt.Axis(**style)),
            alt.Color("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=SHADES), legend=legend),
        )
        .properties(width=cell * len(classes), height=cell * len(classes), view=alt.ViewConfig(stroke="#bbbbbb"))
    )
    wrong = frame[frame["label"] != frame["prediction"]].nlargest(3, "share")
    most = "; ".join(f"{row['label']} as {row['prediction']} {rate(row['share'])}" for _, row in wrong.iterrows())
    right = float(frame.loc[frame["label"] == frame["prediction"], "rows"].sum() / frame["rows"].sum())
    caption = f"{title}: accuracy {rate(right)}." + (f" Most mistaken: {most}." if most else "")
    return Figure(name, chart, caption, f"Confusion matrix of {caption}")
