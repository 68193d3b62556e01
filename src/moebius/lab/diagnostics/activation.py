"""Activation rates: which expert is used for which data set and class."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.parts import FEW, axis_steps, weight_shades
from moebius.lab.report.expert_names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.figures import WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.published import match_rates, published_of
from moebius.lab.report.queries import figure_name, gates_with
from moebius.lab.report.source import Study

ORDER = 50
# Two expert names of at most this many letters fit side by side under their columns; longer ones are turned.
SHORT = 11


class Activation(Measure):
    """How much each group of rows (a data set, a class, a split, a position) uses each expert.

    rate(S, e) = mean over x in S of G(x)_e;  used(S, e) = share of S on which e runs

    Range: that of the weights, for gates that are distributions 0 … 1 and Σ_e rate(S, e) = 1; used 0 … 1.
    Null: the rate over all rows of the grouping, which every group has under a permuted gate.

    The frame has the columns by (the grouping), group, expert, rate, rows (of the group), used, null; groups without
    rows are left out.

    Example:
        >>> import torch
        >>> weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
        >>> groups, names = {"domain": torch.tensor([0, 0, 1])}, {"domain": ["mnist", "cifar"]}
        >>> Activation.of(RoutedRows(weights, groups=groups, names=names))["rate"].tolist()
        [0.75, 0.25, 0.0, 1.0]

    Reference: ours; the activation rate of studies 1 and 2. Compare Muennighoff et al. 2024, OLMoE, arXiv:2409.02060,
    section 5.3 (domain specialisation, which is `used`).
    """

    requires = ("groups",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add weights and rows of each group and expert."""
        kept_TE = rows.kept.double()
        for by in rows.groups:
            self.add(f"weights.{by}", rows.sum_by_group(by, rows.doubled_weights))
            self.add(f"used.{by}", rows.sum_by_group(by, kept_TE))
            self.add(f"rows.{by}", rows.group_sizes(by))

    def frame(self) -> pd.DataFrame:
        """A line for each grouping, group and expert."""
        return self.by_grouping("rows", self._of_grouping)

    def _of_grouping(self, by: str) -> Frame:
        weights_GE, rows_G = self.total(f"weights.{by}"), self.total(f"rows.{by}")
        present = np.flatnonzero(rows_G)
        count_G1 = rows_G[present, None]
        null_E = weights_GE.sum(0) / max(rows_G.sum(), 1)
        names = np.asarray(self.group_names(by, len(rows_G)), dtype=object)
        return pd.DataFrame(
            {
                "by": by,
                "group": np.repeat(names[present], self.experts),
                "expert": np.tile(np.arange(self.experts), len(present)),
                "rate": (weights_GE[present] / count_G1).ravel(),
                "rows": np.repeat(rows_G[present].astype(np.int64), self.experts),
                "used": (self.total(f"used.{by}")[present] / count_G1).ravel(),
                "null": np.tile(null_E, len(present)),
            }
        )


def section(study: Study) -> Section | None:
    """A table and heat maps of the rates for every gate: the first seed in full, the other seeds small."""
    pairs = gates_with(study, "activation")
    if not pairs:
        return None
    blocks: list[Block] = [
        Text(
            "The activation rate of an expert on a set of rows is the mean of its gate weight. Experts that have no "
            "name are numbered from 0, as in the files; which of them takes what differs from seed to seed, so nothing "
            "here is averaged over seeds."
        )
    ]
    if float(study.table("activation")["rate"].min()) < -0.0005:
        blocks.append(Text("Gates that give no distribution may weigh an expert below 0 (orange) or above 1."))
    for variant, gate in pairs:
        frame, labels = study.table("activation", variant=variant, gate=gate), expert_names(study, variant, gate)
        seeds = sorted(set(frame["seed"]))
        title, first = title_of(study, variant, gate), frame[frame["seed"] == seeds[0]]
        first_title = f"{title}, seed {seeds[0]}"
        figures = []
        for by in ("domain", "class"):
            lines = first[first["by"] == by]
            if len(lines):
                name = figure_name(study, f"activation-{by}", variant, gate)
                figures.append(_heat_map(lines, by, labels, name, first_title))
        if len(seeds) > 1:
            figures.append(_seed_maps(frame, labels, figure_name(study, "activation-seeds", variant, gate), title))
        rates = _rate_table(first, labels, f"{first_title}: activation rates by data set")
        rates = _with_published(study, variant, gate, seeds[0], rates)
        blocks += [Heading(title), rates, Panels(figures)]
        if len(seeds) > 1:
            other_seeds = _rate_table(frame[frame["seed"] != seeds[0]], labels, f"{title}: rates by data set")
            blocks.append(Details(f"{title}: rates of the other seeds", [other_seeds]))
    return Section("activation", "Activation of the experts", blocks)


def _rate_table(frame: Frame, names: Sequence[str] | None, caption: str) -> Table:
    by_domain = frame[frame["by"] == "domain"]
    wide = by_domain.pivot_table(index=["seed", "split", "group"], columns="expert", values="rate", sort=False)
    several = by_domain["seed"].nunique() > 1
    heads = ["seed", "split", "data set"] if several else ["split", "data set"]
    rows, shades = [], []
    for key, rates in zip(wide.index, wide.to_numpy(), strict=True):
        row_heads = [str(part) for part in (key if several else key[1:])]
        rows.append([*row_heads, *(rate(float(value)) for value in rates)])
        shades.append([None] * len(row_heads) + [float(value) for value in rates])
    return Table(
        caption, [*heads, *(expert_label(names, expert) for expert in wide.columns)], rows, len(heads), shades=shades
    )


def _with_published(study: Study, variant: str, gate: str, seed: int, table: Table) -> Table:
    """The table with the published rates below, in the order of the experts that they are matched with."""
    match = next((each for each in match_rates(study) if (each.variant, each.seed) == (variant, seed)), None)
    if match is None or gate != study.first_gate(variant):
        return table
    published = published_of(study)[variant]["activation"]
    places = [match.partners.index(expert) for expert in range(len(match.partners))]
    lines = {domain: [float(published[domain][place]) for place in places] for domain in match.rates}
    rows = [["published", domain, *map(rate, rates)] for domain, rates in lines.items()]
    shades = [[None, None, *rates] for rates in lines.values()]
    caption = f"{table.caption}; published ones with their experts matched"
    return replace(table, caption=caption, rows=[*table.rows, *rows], shades=[*(table.shades or ()), *shades])


def _colour(frame: Frame, experts: int) -> alt.Color:
    top = float(frame["rate"].max())
    # With many experts all rates are small. The scale ends at 2/E at least, so that an even rate of 1/E is not dark.
    scale = weight_shades(float(frame["rate"].min()), max(top, 1.0 if experts <= FEW else 2 / experts))
    return alt.Color("rate:Q", scale=scale, legend=alt.Legend(title="activation rate", gradientLength=WIDTH / 2))


def _axis(order: Sequence[str], named: bool) -> alt.X:
    """Experts from left to right by number or by name; names that are many or long are turned."""
    if named:
        angle = 0 if len(order) <= 2 and max(map(len, order)) <= SHORT else -90
        return alt.X(
            "named:N", sort=list(order), title=None, axis=alt.Axis(labelAngle=angle, ticks=False, domain=False)
        )
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False, values=axis_steps(len(order)))
    return alt.X("expert:O", title="expert", axis=axis)


def _heat_map(frame: Frame, by: str, names: Sequence[str] | None, name: str, title: str) -> Figure:
    experts, groups = int(frame["expert"].max()) + 1, list(dict.fromkeys(frame["group"]))
    beside = experts <= FEW
    width = (WIDTH - 30) / 2 if beside else WIDTH
    labelled, order = with_labels(frame.assign(text=[rate(float(value)) for value in frame["rate"]]), names)
    x = _axis(order, named=names is not None)
    y = alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(ticks=False, domain=False))
    colour = _colour(frame, experts)
    height = (34 if by == "domain" else max(8, min(17, 420 // len(groups)))) * len(groups)
    base = alt.Chart(labelled).encode(x, y)
    layers = [base.mark_rect().encode(colour)]
    if beside:
        edge = 0.55 * max(1.0, float(frame["rate"].abs().max()))
        dark = alt.condition(f"abs(datum.rate) > {edge}", alt.value("white"), alt.value("black"))
        layers.append(base.mark_text(fontSize=11).encode(text="text:N", color=dark))
    facet = alt.Facet("split:N", sort=["test", "train"], title=None, header=alt.Header(labelFontWeight="bold"))
    cell = alt.layer(*layers).properties(width=width, height=height)
    chart = cell.facet(facet, columns=2 if beside else 1).resolve_axis(y="shared")
    grouping = "data set" if by == "domain" else "class"
    test = frame[frame["split"] == "test"]
    top = test.loc[test.groupby("group", sort=False)["rate"].idxmax()]
    largest = "; ".join(
        f"{row['group']}: {expert_label(names, row['expert'])} {rate(row['rate'])}" for _, row in top.iterrows()
    )
    alt_text = f"{title}: largest activation rate on test by {grouping}: {largest}."
    return Figure(name, chart, f"{title}: activation rate by {grouping}.", alt_text, tall=by == "class")


def _seed_maps(frame: Frame, names: Sequence[str] | None, name: str, title: str) -> Figure:
    shown, order = with_labels(frame[(frame["by"] == "domain") & (frame["split"] == "test")], names)
    seeds, groups = shown["seed"].nunique(), list(dict.fromkeys(shown["group"]))
    experts = int(shown["expert"].max()) + 1
    columns = min(seeds, 5) if experts <= FEW else 1
    width = (WIDTH - 14 * (columns - 1)) / columns
    facet = alt.Facet("run:N", title=None)
    rows = alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(ticks=False, domain=False))
    chart = (
        alt.Chart(shown.assign(run=[f"seed {seed}" for seed in shown["seed"]]))
        .mark_rect()
        .encode(
            _axis(order, named=names is not None),
            rows,
            _colour(shown, experts),
        )
        .properties(width=width, height=22 * len(groups))
        .facet(facet, columns=columns)
        .resolve_axis(y="shared")
    )
    caption = f"{title}: activation rate on test by data set, every seed."
    caption += "" if names else " Expert numbers mean nothing across seeds."
    return Figure(name, chart, caption, caption)
