"""Collapse: experts that a gate leaves unused."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.special import bdtr

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.blocks import Block, Details, Panels, Section, Table, Text
from moebius.lab.report.charts.shares import share_chart
from moebius.lab.report.expert_names import expert_names, title_of
from moebius.lab.report.figures import Figure
from moebius.lab.report.numbers import names_of, of_seeds, rate
from moebius.lab.report.queries import gates_with
from moebius.lab.report.source import Study

ORDER = 65
# An expert's few rows count where a balanced router gives any expert so few in one case of 20.
RARE = 0.05
# More lines than this are behind a summary.
MOST_LINES = 40
# Of more unused experts the first ones are named.
LISTED = 6


class Collapse(Measure):
    """Which experts get hardly any rows, and which get hardly any weight at all.

    starved_e: share_e < floor · null and load_e < floor / E, and chance · E < .05
    ignored_e: Σ_S rate(S, e) < nothing · G / E, over all G groups S

    load_e is the share of rows whose largest weight is e. share_e is the same where all experts run, and else the share
    of rows on which e runs. chance = P[Bin(T, null) ≤ T · share_e] is how often a balanced router gives e so few rows.
    An expert can be starved and not ignored: it may weigh .4 everywhere and win nowhere. Rates are of absolute weights:
    a negative weight counts as use.

    Range: load, share and chance 0 … 1; with one expert nothing is starved or ignored.
    Null: 1/E, or k/E where k experts of a row run: the share under a random balanced router. Few rows starve nobody.

    The frame has the columns expert, load, share, rates (the sum of its rates over the groups), null, chance, starved,
    ignored.

    Arguments:
        floor: part of an even share below which an expert counts as starved.
        nothing: part of an even rate below which an expert counts as ignored.
        by: the grouping whose rates are summed; all rows are one group where they have none.

    Example:
        >>> import torch
        >>> weights = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]]).repeat(20, 1)
        >>> Collapse.of(RoutedRows(weights))[["starved", "ignored"]].values.tolist()
        [[False, False], [True, False], [True, True]]

    Reference: ours; *ignored* as in study 2 (for two experts and two data sets: a sum of rates under .001), *starved*
    as in study 5 (for ten experts: under 2 % of the rows).
    """

    def __init__(self, floor: float = 0.2, nothing: float = 1e-3, by: str = "domain"):
        super().__init__()
        self.floor, self.nothing, self.by = floor, nothing, by

    def add_rows(self, rows: RoutedRows) -> None:
        """Add wins, rows, and weights by group."""
        self.add("wins", rows.wins)
        self.add("counts", rows.counts)
        if self.by in rows.groups:
            sizes = rows.group_sizes(self.by)
            sums, of_sizes = rows.sum_by_group(self.by, rows.doubled_weights), sizes
            absolute = rows.sum_by_group(self.by, rows.doubled_weights.abs()) if rows.has_negative else sums
        else:
            sums, of_sizes = rows.weight_sums.unsqueeze(0), torch.tensor([len(rows)])
            absolute = rows.doubled_weights.abs().sum(0, keepdim=True) if rows.has_negative else sums
        for name, value in (("weights", sums), ("absolute", absolute), ("sizes", of_sizes)):
            self.add(name, value)

    def frame(self) -> pd.DataFrame:
        """A line for each expert."""
        wins_E, counts_E, sizes_G = (self.total(name) for name in ("wins", "counts", "sizes"))
        all_run = self.k >= self.experts
        rows_E = wins_E if all_run else counts_E
        null = min(1.0, float(rows_E.sum()) / (self.rows * self.experts))
        present = sizes_G > 0
        rates_E, absolute_E = (
            (self.total(name)[present] / sizes_G[present, None]).sum(0) for name in ("weights", "absolute")
        )
        chance_E = bdtr(np.floor(rows_E + 1e-9), self.rows, null)
        rare_E = (chance_E * self.experts < RARE) & (self.experts > 1)
        few_E = (rows_E / self.rows < self.floor * null) & (wins_E / self.rows < self.floor / self.experts)
        light_E = absolute_E < self.nothing * present.sum() / self.experts
        # An expert that runs, with weights of almost nothing, is no accident of few rows.
        return pd.DataFrame(
            {
                "expert": np.arange(self.experts),
                "load": wins_E / self.rows,
                "share": rows_E / self.rows,
                "rates": rates_E,
                "null": null,
                "chance": chance_E,
                "starved": few_E & rare_E,
                "ignored": light_E & (self.experts > 1) & (rare_E | (counts_E > 0)),
            }
        )


def section(study: Study) -> Section | None:
    """The experts that each gate leaves unused: in how many seeds, and one line for every run."""
    pairs = gates_with(study, "collapse")
    rows, marked = [], []
    ignored_in: dict[str, list[bool]] = {}
    starved_in: dict[str, list[bool]] = {}
    for variant, gate in pairs:
        names = expert_names(study, variant, gate)
        title = title_of(study, variant, gate)
        for seed in study.seeds_of(variant):
            where = {"variant": variant, "gate": gate, "seed": seed, "split": "test"}
            experts, entropy = study.table("collapse", **where), study.table("entropy", **where)
            if experts.empty:
                continue
            ignored = experts.loc[experts["ignored"], "expert"].tolist()
            starved = experts.loc[experts["starved"], "expert"].tolist()
            ignored_in.setdefault(title, []).append(bool(ignored))
            starved_in.setdefault(title, []).append(bool(starved))
            if ignored or starved:
                marked.append(len(rows))
            effective = f"{entropy['effective_experts'].iloc[0]:.2f} of {len(experts)}"
            cells = [title, str(seed), effective, rate(experts["load"].min()), rate(experts["load"].max())]
            rows.append([*cells, _list_experts(starved, names), _list_experts(ignored, names)])
    if not rows:
        return None
    columns = ["gate", "seed", "effective experts", "smallest load", "largest load", "starved", "ignored"]
    text = (
        "Load is the share of test rows that an expert wins (its gate weight is the largest; a tie is divided). "
        "Effective experts: exp of the entropy of the mean weights. An expert is starved where it wins less than a "
        "fifth of an even share of the rows (and, where the router selects experts, also runs on less than a fifth), "
        "and less than chance gives. It is ignored where its activation rate is under a thousandth of an even one. "
        "Runs with such experts are marked."
    )
    lines: Block = Table("Unused experts, test rows", columns, rows, heads=2, marked=marked)
    if len(rows) > MOST_LINES:
        lines = Details(f"Unused experts of each of the {len(rows)} runs", [lines])
    summary = _summary(starved_in, ignored_in) if len(study.seeds) > 1 else ()
    return Section("collapse", "Collapse", [Text(text), *summary, lines])


def _summary(starved_in: Mapping[str, Sequence[bool]], ignored_in: Mapping[str, Sequence[bool]]) -> list[Block]:
    """In how many seeds each gate leaves experts unused."""
    rows = [
        [title, *(of_seeds(sum(seen[title]), len(seen[title])) for seen in (starved_in, ignored_in))]
        for title in starved_in
    ]
    caption = "Seeds with an unused expert, with 95 % intervals of their share (Clopper, Pearson)"
    table = Table(caption, ["gate", "with a starved expert", "with an ignored expert"], rows)
    if not any(any(seen) for seen in ignored_in.values()):
        return [table]
    counts = {title: (sum(seen), len(seen)) for title, seen in ignored_in.items()}
    told = "; ".join(f"{title} {of_seeds(*of_title)}" for title, of_title in counts.items())
    subject = "Share of seeds with an ignored expert"
    figure = Figure("collapse", share_chart(counts, subject), f"{subject}, 95 % intervals.", f"{subject}: {told}.")
    return [Panels([figure]), table]


def _list_experts(experts: list[int], names: Sequence[str] | None) -> str:
    return names_of([names[expert] if names else str(expert) for expert in experts], LISTED) if experts else "none"
