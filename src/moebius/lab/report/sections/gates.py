"""Gates over the epochs: entropy and load."""

import altair as alt

from moebius.lab.report.blocks import Block, Heading, Panels, Section, Text
from moebius.lab.report.charts.parts import FEW, axis_steps, blues, epoch_axis, variant_colour
from moebius.lab.report.expert_names import expert_label, expert_names, title_of, with_labels
from moebius.lab.report.figures import COLOURS, HEIGHT, WIDTH, Figure, slug
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.queries import (
    at_first_gates,
    curve_groups,
    figure_name,
    gates_with,
    over_seeds,
    split_untrained,
)
from moebius.lab.report.source import Study

ORDER = 70
# Beyond so many experts their lines are thin.
MANY = 24
ENTROPIES = {"marginal_entropy": "entropy of the mean weights", "entropy": "entropy of a row"}


def section(study: Study) -> Section | None:
    """Entropy of each gate and load of its experts by epoch."""
    frame, pairs = study.table("gates"), gates_with(study, "gates")
    if frame.empty or not pairs:
        return None
    # The gate of an untrained variant does not change over epochs.
    frame, _ = split_untrained(frame)
    if frame.empty:
        return None
    blocks: list[Block] = [
        Text(
            "On test rows at each epoch's end. A gate that decides has a low entropy for a row; one that uses all "
            "its experts has a high entropy of the mean weights. When both are low, it has collapsed."
        )
    ]
    taken: set[str] = set()
    at_first = at_first_gates(study, frame)
    groups = [
        (title, [name for name in names if (name, study.first_gate(name)) in pairs])
        for title, names in curve_groups(study)
    ]
    figures = [_entropy_figure(study, at_first, names, title, taken) for title, names in groups]
    blocks.append(Panels([figure for figure in figures if figure]))
    loads = [_load_figure(study, frame, pair, figure_name(study, "load", *pair)) for pair in pairs]
    blocks += [Heading("Load: the share of rows that each expert wins"), Panels([load for load in loads if load])]
    return Section("gates", "Gates over the epochs", blocks)


def _entropy_figure(study: Study, frame: Frame, names: list[str], title: str, taken: set[str]) -> Figure | None:
    entropies = frame[frame["variant"].isin(names) & frame["measure"].isin(list(ENTROPIES))]
    if entropies.empty:
        return None
    shown = over_seeds(entropies, ["variant", "measure", "epoch"])
    shown["entropy"] = [ENTROPIES[measure] for measure in shown["measure"]]
    dash = alt.StrokeDash(
        "entropy:N",
        scale=alt.Scale(domain=list(ENTROPIES.values()), range=[[1, 0], [5, 4]]),
        legend=alt.Legend(title=None, columns=1),
    )
    point = alt.OverlayMarkDef(size=35) if shown["epoch"].nunique() == 1 else False
    y = alt.Y("mean:Q", title="entropy in nats", scale=alt.Scale(zero=True))
    colour = variant_colour(study, names)
    chart = alt.Chart(shown).mark_line(strokeWidth=2, point=point).encode(epoch_axis(shown, 12), y, colour, dash)
    last = shown[shown["epoch"] == shown.groupby("variant")["epoch"].transform("max")]
    final = "; ".join(f"{row['variant']} {row['entropy']} {row['mean']:.2f}" for _, row in last.iterrows())
    lead = f"{title}: entropy" if title else "Entropy"
    caption = f"{lead} of the gates by epoch{', means over seeds' if shown['count'].max() > 1 else ''}."
    # More cannot be told apart by colour.
    caption += " Grey: the variants that are worst on test." if len(names) > len(COLOURS) else ""
    name = slug(f"gate-entropy {title}", taken)
    return Figure(name, chart.properties(width=WIDTH, height=HEIGHT), caption, f"{caption} At the end: {final}.")


def _load_figure(study: Study, frame: Frame, pair: tuple[str, str], name: str) -> Figure | None:
    loads = frame[(frame["variant"] == pair[0]) & (frame["gate"] == pair[1]) & (frame["measure"] == "load")]
    if loads.empty:
        return None
    seeds, experts = loads["seed"].nunique(), int(loads["expert"].max()) + 1
    names = expert_names(study, *pair)
    loads = loads.assign(expert=loads["expert"].astype(int), seed=[f"seed {seed}" for seed in loads["seed"]])
    loads, order = with_labels(loads, names)
    columns = 1 if seeds == 1 else min(3, seeds) if experts <= FEW else min(2, seeds)
    size = {"width": (WIDTH - 14 * (columns - 1)) / columns, "height": HEIGHT - 60 if seeds == 1 else 110}
    if experts <= FEW:
        scale = alt.Scale(domain=order, range=list(COLOURS[:experts]))
        colour = alt.Color(
            "named:N",
            scale=scale,
            legend=alt.Legend(title=None if names else "expert", titleOrient="left", symbolType="stroke"),
        )
        point = alt.OverlayMarkDef(size=35) if loads["epoch"].nunique() == 1 else False
        y = alt.Y("value:Q", title="load", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3))
        chart = alt.Chart(loads).mark_line(strokeWidth=2, point=point).encode(epoch_axis(loads, 5), y, colour)
    else:
        colour = alt.Color(
            "value:Q",
            scale=blues(float(loads["value"].max())),
            legend=alt.Legend(title="load", gradientLength=WIDTH / 2),
        )
        y = alt.Y("expert:O", axis=alt.Axis(values=axis_steps(experts), ticks=False, domain=False))
        if names:
            y = alt.Y("named:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelFontSize=11))
        epochs = sorted(set(loads["epoch"]))
        ticks = alt.Axis(
            values=[epochs[place] for place in axis_steps(len(epochs), 6)], labelAngle=0, ticks=False, domain=False
        )
        chart = alt.Chart(loads).mark_rect().encode(alt.X("epoch:O", axis=ticks), y, colour)
        size["height"] = max(110, (13 if names else 11 if experts <= MANY else 4) * experts)
    chart = chart.properties(**size)
    if seeds > 1:
        chart = chart.facet(alt.Facet("seed:N", title=None), columns=columns)
    first = loads[loads["seed"] == loads["seed"].iloc[0]]
    first = first[first["epoch"] == first["epoch"].max()]
    final = "; ".join(f"{expert_label(names, row['expert'])} {rate(row['value'])}" for _, row in first.iterrows())
    title = title_of(study, *pair)
    return Figure(
        name,
        chart,
        f"{title}: load by epoch.",
        f"{title}: load by epoch; {first['seed'].iloc[0]}, at the end: {final}.",
    )
