"""Histograms of the gate weights of single rows: does one row use one expert?"""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import ROUNDING, check_finite, check_indices
from moebius.lab.diagnostics.entropy_histogram import entropy_figure
from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.parts import FEW, SHADES, axis_steps
from moebius.lab.report.charts.weight_panels import weight_panels
from moebius.lab.report.expert_names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.figures import COLOURS, WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows
from moebius.lab.report.numbers import rate
from moebius.lab.report.queries import at_first_gates, figure_name, gates_with, ranking
from moebius.lab.report.shown_variants import DRAWN, shown_variants, undrawn_text
from moebius.lab.report.source import Study

ORDER = 60
# Variants that have a panel.
MOST_PANELS = 12
# Pixels between two columns of histograms.
GAP = 14


def weight_histogram(
    weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str], bins: int = 20
) -> pd.DataFrame:
    """Count each expert's weight row by row: does *one row* use one expert? The mean over a group hides it.

    share(S, e, b) = |{x in S: low_b ≤ G(x)_e < high_b}| / |S|;  Σ_b share = 1; the last bin includes its upper end

    Arguments:
        weights: gate weights.
        groups: index of each row's group into `names`.
        names: names of the groups.
        bins: equal bins over [0, 1], or from the smallest to the largest weight if a weight is outside that range.

    Returns:
        Columns group, expert, low, high, rows, share; groups without rows are left out.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.6, 0.4]])
        >>> weight_histogram(weights, np.array([0, 0]), ["all"], bins=2)["rows"].tolist()
        [0, 2, 2, 0]

    Reference: ours.
    """
    check_finite(weights)
    check_indices(groups, names)
    low, high = (float(weights.min()), float(weights.max())) if weights.size else (0.0, 1.0)
    low, high = low if low < -ROUNDING else 0.0, high if high > 1 + ROUNDING else 1.0
    experts, edges = weights.shape[1], np.linspace(low, high, bins + 1)
    bin_TE = np.clip((weights.astype(np.float64) - low) * (bins / (high - low)), 0, bins - 1).astype(np.int64)
    rows_GEB = np.stack(
        [np.bincount(groups * bins + column, minlength=len(names) * bins).reshape(-1, bins) for column in bin_TE.T], 1
    )
    rows_G = np.bincount(groups, minlength=len(names))
    present = np.flatnonzero(rows_G)
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], experts * bins),
            "expert": np.tile(np.repeat(np.arange(experts), bins), len(present)),
            "low": np.tile(edges[:-1], len(present) * experts),
            "high": np.tile(edges[1:], len(present) * experts),
            "rows": rows_GEB[present].ravel(),
            "share": (rows_GEB[present] / rows_G[present, None, None]).ravel(),
        }
    )


def table(rows: GateRows) -> Frame:
    """The histogram of each data set and expert."""
    return weight_histogram(rows.weights, rows.domains, rows.domain_names)


def section(study: Study) -> Section | None:
    """The largest weight of a row for every variant; histograms of all weights and entropies for every gate."""
    pairs = gates_with(study, "weight_histogram")
    if not pairs:
        return None
    blocks: list[Block] = [
        Text(
            "An expert with a rate of .5 may share every row, or own every second one. Here each test row counts "
            "by itself: where its largest weight is 1, the row uses one expert."
        )
    ]
    panels = _panels(study)
    blocks += [Panels([panels])] if panels else []
    drawn = shown_variants(study, {variant for variant, _ in pairs}, DRAWN)
    details: list[Block] = [
        Text(
            "Weights at 0 and 1, and entropies at 0, mean that one row uses one expert. Entropies are in nats; in "
            "brackets the number of experts that, used alike, have that entropy."
            f"{undrawn_text(dict(pairs), drawn, 'tables/weight_histogram.csv')}"
        )
    ]
    for variant, gate in sorted((pair for pair in pairs if pair[0] in drawn), key=lambda pair: drawn.index(pair[0])):
        seed = study.seeds_of(variant)[0]
        where = {"variant": variant, "gate": gate, "seed": seed, "split": "test"}
        weights, entropies = study.table("weight_histogram", **where), study.table("entropy_histogram", **where)
        if weights.empty:
            continue
        title = title_of(study, variant, gate)
        title_with_seed = f"{title}, seed {seed}"
        figures = [
            _weight_figure(
                weights,
                expert_names(study, variant, gate),
                figure_name(study, "weights", variant, gate),
                title_with_seed,
            ),
            entropy_figure(entropies, figure_name(study, "entropies", variant, gate), title_with_seed),
        ]
        details += [Heading(title), Panels(figures)]
    blocks += [_entropy_table(study, pairs), Details("All weights and entropies, gate by gate", details)]
    return Section("rows", "Does one row use one expert?", blocks)


def _panels(study: Study) -> Figure | None:
    """A panel for the first gate of each variant, the best first: the first seed's test rows."""
    frame = at_first_gates(study, study.table("largest_weight", split="test"))
    if frame.empty:
        return None
    present = set(frame["variant"])
    order = [variant for variant, _ in ranking(study) if variant in present] or list(dict.fromkeys(frame["variant"]))
    chosen = order[:MOST_PANELS]
    frame = frame[frame["variant"].isin(chosen) & (frame["seed"] == frame.groupby("variant")["seed"].transform("min"))]
    ends = {
        variant: float(bins.loc[bins["low"] >= 0.9 - 1e-9, "share"].sum()) for variant, bins in frame.groupby("variant")
    }
    chart = weight_panels(frame.assign(title=frame["variant"]), chosen)
    left = f", the {len(chosen)} best of {len(order)} variants" if len(chosen) < len(order) else ""
    caption = f"Test rows by the share of their weight that one expert has{left}; the best variant first."
    texts = "; ".join(f"{variant} {rate(ends[variant])}" for variant in chosen)
    return Figure(
        "largest-weight", chart, caption, f"{caption} Share of rows of which one expert has .9 or more: {texts}."
    )


def _entropy_table(study: Study, pairs: list[tuple[str, str]]) -> Table:
    frame = study.table("entropy", split="test")
    rows, measures = [], ("row", "marginal", "row_experts", "effective_experts")
    for variant, gate in pairs:
        by_seed = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
        if by_seed.empty:  # a gate of results.json that routing.parquet has no weights of
            continue
        numbers = [f"{by_seed[measure].mean():.2f}" for measure in measures]
        title = title_of(study, variant, gate)
        rows.append([title, str(by_seed["experts"].iloc[0]), rate(by_seed["largest_weight"].mean()), *numbers])
    columns = ["gate", "experts", "largest weight, median row", "entropy of a row", "entropy of the mean"]
    columns += ["effective experts of a row", "effective experts over all"]
    return Table("Test rows, means over seeds; entropies in nats", columns, rows)


def _weight_figure(frame: Frame, names: Sequence[str] | None, name: str, title: str) -> Figure:
    domains = list(dict.fromkeys(frame["group"]))
    columns = min(len(domains), 2)
    width = (WIDTH - GAP * (columns - 1)) / columns
    experts = int(frame["expert"].max()) + 1
    ticks = alt.Axis(values=[0, 0.5, 1], grid=False) if frame["high"].max() <= 1 else alt.Axis(grid=False, tickCount=4)
    x = alt.X("low:Q", bin="binned", title="gate weight of a row", axis=ticks, scale=alt.Scale(nice=False))
    if experts <= FEW:
        shown = frame.assign(label=[expert_label(names, expert) for expert in frame["expert"]])
        order = [expert_label(names, expert) for expert in range(experts)]
        y = alt.Y("share:Q", title="share of rows", axis=alt.Axis(tickCount=3, format=".1~f"))
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
        legend = alt.Legend(title="share of rows", gradientLength=WIDTH / 2)
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
    caption = f"{title}: gate weights of single test rows, by data set."
    # Weights in the outer bins belong to rows that an expert gets whole or not at all.
    outer = frame[(frame["low"] < 0.05) | (frame["high"] > 0.95)].groupby("group", sort=False)["rows"].sum()
    total = frame.groupby("group", sort=False)["rows"].sum()
    shares = "; ".join(f"{group} {rate(float(outer.get(group, 0) / total[group]))}" for group in domains)
    return Figure(name, chart, caption, f"{caption} Share of weights below .05 or above .95: {shares}.")
