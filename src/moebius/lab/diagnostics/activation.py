"""Activation rates: which expert is used for which data set and class."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.alone_scores import alone_scores
from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.expert_maps import expert_maps, row_tops
from moebius.lab.report.charts.parts import FEW, axis_steps, weight_shades
from moebius.lab.report.expert_names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.figures import WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import listing, rate
from moebius.lab.report.published import match_rates, published_of
from moebius.lab.report.queries import figure_name, gates_with
from moebius.lab.report.shown_variants import DRAWN, shown_variants, undrawn_text
from moebius.lab.report.source import Study

ORDER = 50
# Two expert names of at most this many letters fit side by side under their columns; longer ones are turned.
SHORT = 11
# Experts and groups that a figure shows.
EXPERTS, GROUPS = 16, 20


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
    """For each gate how much it uses each expert, beside how good that expert is alone; and a table of the rates."""
    pairs = gates_with(study, "activation")
    if not pairs:
        return None
    blocks: list[Block] = [
        Text(
            "The activation rate of an expert on a set of rows is the mean of its gate weight. Beside it is what the "
            "expert can do: its score alone on the same test rows, on the same scale and with the same colours. Frames "
            "mark the largest of a line, all of them where several tie: where the frames of both sides agree, the gate "
            "asks the best expert. Experts that have no name are numbered from 0, as in the files; which of them takes "
            "what differs from seed to seed, so nothing here is averaged over seeds."
        )
    ]
    if float(study.table("activation")["rate"].min()) < -0.0005:
        blocks.append(Text("Gates that give no distribution may weigh an expert below 0 (orange) or above 1."))
    variants = {variant for variant, _ in pairs}
    shown, drawn = shown_variants(study, variants), shown_variants(study, variants, DRAWN)
    order = list(dict.fromkeys([*shown, *drawn]))
    for variant, gate in sorted((pair for pair in pairs if pair[0] in order), key=lambda pair: order.index(pair[0])):
        title, inside = title_of(study, variant, gate), _gate_blocks(study, variant, gate)
        blocks += [Heading(title), *inside] if variant in shown else [Details(title, inside)]
    rest = undrawn_text(dict(pairs), order, "tables/activation.csv")
    blocks += [Text(rest.strip())] if rest else []
    return Section("activation", "Which expert is asked, and which is good", blocks)


def _gate_blocks(study: Study, variant: str, gate: str) -> list[Block]:
    frame, labels = study.table("activation", variant=variant, gate=gate), expert_names(study, variant, gate)
    seeds = sorted(set(frame["seed"]))
    title, first = title_of(study, variant, gate), frame[frame["seed"] == seeds[0]]
    first_title = f"{title}, seed {seeds[0]}"
    figures = []
    for by in ("class", "domain"):
        lines = first[(first["by"] == by) & (first["split"] == "test")]
        if not len(lines):
            continue
        alone = alone_scores(study, variant, gate, seeds[0], by, list(dict.fromkeys(lines["group"])))
        # Rates by data set are in the table below.
        if by == "class" or (alone is not None and (lines["group"].nunique() > 1 or not figures)):
            name = figure_name(study, f"activation-{by}", variant, gate)
            figures.append(_maps(study, lines, alone, labels, name, first_title))
    rates = _rate_table(first, labels, f"{first_title}: activation rates by data set")
    rates = _with_published(study, variant, gate, seeds[0], rates)
    blocks: list[Block] = [*([Panels(figures)] if figures else []), rates]
    if len(seeds) > 1:
        other_seeds = _rate_table(frame[frame["seed"] != seeds[0]], labels, f"{title}: rates by data set")
        maps = _seed_maps(frame, labels, figure_name(study, "activation-seeds", variant, gate), title)
        blocks.append(Details(f"{title}: rates of the other seeds", [Panels([maps]), other_seeds]))
    return blocks


def _maps(
    study: Study,
    frame: Frame,
    alone: Float[np.ndarray, "G E"] | None,
    names: Sequence[str] | None,
    name: str,
    title: str,
) -> Figure:
    """Rates beside scores alone. Of many experts those with the largest rates are shown, of many groups those that lose
    most by the gate's choice, or else those with the largest rates.
    """
    by, groups = str(frame["by"].iloc[0]), list(dict.fromkeys(frame["group"]))
    rates = frame["rate"].to_numpy().reshape(len(groups), -1)
    sizes = frame["rows"].to_numpy().reshape(rates.shape)[:, 0]
    if alone is not None and alone.shape != rates.shape:
        alone = None
    experts, rest = _largest(sizes @ np.abs(rates), EXPERTS)
    lines, left = list(range(len(groups))), 0
    if len(groups) > GROUPS:
        shares = np.abs(rates) / np.abs(rates).sum(1, keepdims=True).clip(min=1e-12)
        lost = np.abs(rates).max(1) if alone is None else np.nanmax(alone, 1) - np.nansum(shares * alone, 1)
        lines, left = _largest(lost, GROUPS)[0], len(groups) - GROUPS
    maps = {"activation": rates} if alone is None else {"activation": rates, f"{study.measure} alone": alone}
    # An expert that is left out may be the best: then no cell of the line is framed.
    cells = np.ix_(lines, experts)
    tops_of = {heading: row_tops(values if values is alone else np.abs(values)) for heading, values in maps.items()}
    framed = {heading: (values[cells], tops_of[heading][cells]) for heading, values in maps.items()}
    labels = [names[expert] if names and expert < len(names) else str(expert) for expert in experts]
    chart = expert_maps(framed, [groups[line] for line in lines], labels, f"mean weight, and {study.measure} alone")
    noun, plural = ("data set", "data sets") if by == "domain" else ("class", "classes")
    caption = f"{title}: activation{'' if alone is None else f' beside the {study.measure} of each expert alone'}"
    caption += f", test rows by {noun}."
    if rest:
        share = float((sizes @ np.abs(rates[:, rest])).sum() / (sizes @ np.abs(rates)).sum())
        caption += f" The {len(rest)} experts that are left out have {rate(share)} of the weight."
    if left:
        caption += (
            f" Of {len(groups)} {plural} those are shown that {'use an expert' if alone is None else 'lose'} most."
        )
    if alone is not None:
        agree = (row_tops(np.abs(rates)) & row_tops(alone)).any(1)
        caption += f" The expert that is asked most is the best alone, or ties, on {agree.sum()} of {len(groups)}"
        caption += f" {plural}."
    tops = row_tops(np.abs(rates))
    largest = "; ".join(
        f"{group}: {listing([expert_label(names, int(e)) for e in np.flatnonzero(tops[line])][:3])} "
        f"{rate(float(np.abs(rates[line]).max()))}"
        for line, group in enumerate(groups)
    )
    return Figure(name, chart, caption, f"{caption} Largest activation rate: {largest}.")


def _largest(sizes: Float[np.ndarray, " N"], most: int) -> tuple[list[int], list[int]]:
    """Positions of the largest, in order of position, and the others; all where they are no more than `most`."""
    chosen = np.argsort(-sizes, kind="stable")[:most].tolist()
    return sorted(chosen), [place for place in range(len(sizes)) if place not in chosen]


def _rate_table(frame: Frame, names: Sequence[str] | None, caption: str) -> Table:
    by_domain = frame[frame["by"] == "domain"]
    wide = by_domain.pivot_table(index=["seed", "split", "group"], columns="expert", values="rate", sort=False)
    left = wide.shape[1] - EXPERTS
    if left > 0:
        order = wide.abs().mean().sort_values(ascending=False, kind="stable").index[:EXPERTS]
        wide, caption = wide[sorted(order)], f"{caption}, of the {EXPERTS} experts with the largest; {left} more"
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
