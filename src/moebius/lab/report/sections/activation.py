"""Activation rates: which expert takes which data set and class."""

from collections.abc import Sequence

import altair as alt

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.figures import WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.sections._names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.sections._shared import FEW, axis_steps, file_of, gates_with, variant_slugs, weight_shades
from moebius.lab.report.source import Study

ORDER = 50
# Names of up to so many letters stand side by side under two experts' columns.
SHORT = 11


def section(study: Study) -> Section | None:
    """A table and heat maps for every gate: its first seed in full, the others small."""
    pairs = gates_with(study, "activation")
    if not pairs:
        return None
    names = variant_slugs(study)
    blocks: list[Block] = [
        Text(
            "The activation rate of an expert on a set of images is the mean of its gate weight. Experts that have no "
            "name are numbered from 0, as in the files; which of them takes what differs from seed to seed, so nothing "
            "here is averaged over seeds."
        )
    ]
    if float(study.table("activation")["rate"].min()) < -0.0005:
        blocks.append(Text("Gates that give no distribution may weigh an expert below 0 (orange) or above 1."))
    for variant, gate in pairs:
        frame, experts = study.table("activation", variant=variant, gate=gate), expert_names(study, variant, gate)
        seeds = sorted(set(frame["seed"]))
        title, first = title_of(study, variant, gate), frame[frame["seed"] == seeds[0]]
        named = f"{title}, seed {seeds[0]}"
        figures = [
            _heat(first[first["by"] == by], by, experts, file_of(f"activation-{by}", names[variant], gate), named)
            for by in ("domain", "class")
            if (first["by"] == by).any()
        ]
        if len(seeds) > 1:
            figures.append(_seeds(frame, experts, file_of("activation-seeds", names[variant], gate), title))
        blocks += [Heading(title), _table(first, experts, f"{named}: activation rates by data set"), Panels(figures)]
        if len(seeds) > 1:
            rest = frame[frame["seed"] != seeds[0]]
            table = _table(rest, experts, f"{title}: rates by data set")
            blocks.append(Details(f"{title}: rates of the other seeds", [table]))
    return Section("activation", "Activation of the experts", blocks)


def _table(frame: Frame, names: Sequence[str] | None, caption: str) -> Table:
    by_domain = frame[frame["by"] == "domain"]
    wide = by_domain.pivot_table(index=["seed", "split", "group"], columns="expert", values="rate", sort=False)
    several = by_domain["seed"].nunique() > 1
    heads = ["seed", "split", "data set"] if several else ["split", "data set"]
    rows, shades = [], []
    for key, line in zip(wide.index, wide.to_numpy(), strict=True):
        lead = [str(part) for part in (key if several else key[1:])]
        rows.append([*lead, *(rate(float(value)) for value in line)])
        shades.append([None] * len(lead) + [float(value) for value in line])
    return Table(
        caption, [*heads, *(expert_label(names, expert) for expert in wide.columns)], rows, len(heads), shades=shades
    )


def _colour(frame: Frame, experts: int) -> alt.Color:
    top = float(frame["rate"].max())
    # Of many experts even the most used may have a small rate; one that has but its even part is not dark.
    scale = weight_shades(float(frame["rate"].min()), max(top, 1.0 if experts <= FEW else 2 / experts))
    return alt.Color("rate:Q", scale=scale, legend=alt.Legend(title="activation rate", gradientLength=WIDTH / 2))


def _axis(order: Sequence[str], named: bool) -> alt.X:
    """Experts from left to right: numbers, or names, turned where they are many."""
    if named:
        angle = 0 if len(order) <= 2 and max(map(len, order)) <= SHORT else -90
        return alt.X(
            "named:N", sort=list(order), title=None, axis=alt.Axis(labelAngle=angle, ticks=False, domain=False)
        )
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False, values=axis_steps(len(order)))
    return alt.X("expert:O", title="expert", axis=axis)


def _heat(frame: Frame, by: str, names: Sequence[str] | None, name: str, title: str) -> Figure:
    experts, groups = int(frame["expert"].max()) + 1, list(dict.fromkeys(frame["group"]))
    beside = experts <= FEW
    width = (WIDTH - 30) / 2 if beside else WIDTH
    marked, order = with_labels(frame.assign(text=[rate(float(value)) for value in frame["rate"]]), names)
    x = _axis(order, named=names is not None)
    y = alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(ticks=False, domain=False))
    colour = _colour(frame, experts)
    height = (34 if by == "domain" else max(8, min(17, 420 // len(groups)))) * len(groups)
    base = alt.Chart(marked).encode(x, y)
    layers = [base.mark_rect().encode(colour)]
    if beside:
        edge = 0.55 * max(1.0, float(frame["rate"].abs().max()))
        dark = alt.condition(f"abs(datum.rate) > {edge}", alt.value("white"), alt.value("black"))
        layers.append(base.mark_text(fontSize=11).encode(text="text:N", color=dark))
    facet = alt.Facet("split:N", sort=["test", "train"], title=None, header=alt.Header(labelFontWeight="bold"))
    cell = alt.layer(*layers).properties(width=width, height=height)
    chart = cell.facet(facet, columns=2 if beside else 1).resolve_axis(y="shared")
    of = "data set" if by == "domain" else "class"
    test = frame[frame["split"] == "test"]
    top = test.loc[test.groupby("group", sort=False)["rate"].idxmax()]
    said = "; ".join(
        f"{row['group']}: {expert_label(names, row['expert'])} {rate(row['rate'])}" for _, row in top.iterrows()
    )
    words = f"{title}: largest activation rate on test by {of}: {said}."
    return Figure(name, chart, f"{title}: activation rate by {of}.", words, tall=by == "class")


def _seeds(frame: Frame, names: Sequence[str] | None, name: str, title: str) -> Figure:
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
