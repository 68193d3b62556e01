"""Nested gates: which rows flow where, and how the model does on them."""

import altair as alt

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.figures import INK, WIDTH, Figure
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.numbers import NONE, count, rate
from moebius.lab.report.sections._flow import Node, build_tree, flow_chart
from moebius.lab.report.sections._shared import FEW, blues, variant_slugs
from moebius.lab.report.source import Study

ORDER = 29


def section(study: Study) -> Section | None:
    """A flow diagram of every variant with nested gates, and what each branch is sent."""
    frame = study.table("flow", split="test")
    if frame.empty:
        return None
    names = variant_slugs(study)
    blocks: list[Block] = [
        Text(
            "From the root gate to the leaf experts. The width of a band is the share of the test images that are "
            "sent there, or the mean weight where a gate mixes. In brackets the images for which a branch has the "
            "largest weight; the accuracy is the whole model's on them."
        )
    ]
    for variant in (name for name in study.variants if (frame["variant"] == name).any()):
        own = frame[frame["variant"] == variant]
        trees = {int(seed): build_tree(study, variant, own[own["seed"] == seed]) for seed in sorted(set(own["seed"]))}
        seed, first = next(iter(trees.items()))
        named = f"{variant}, seed {seed}"
        figures = [
            _figure(first, f"tree-{names[variant]}", named),
            _classes(own[own["seed"] == seed], first, f"tree-classes-{names[variant]}", named),
        ]
        blocks += [Heading(variant), _table({seed: first}, f"{named}: branches, test images"), Panels(figures)]
        if len(trees) > 1:
            rest = {seed: tree for seed, tree in trees.items() if tree is not first}
            blocks.append(Details(f"{variant}: the other seeds", [_table(rest, f"{variant}: branches, test images")]))
    return Section("tree", "The flow of rows", blocks)


def _table(trees: dict[int, Node], caption: str) -> Table:
    columns = ["branch", "share", "images", "accuracy on them", "mean weights inside"]
    several = len(trees) > 1
    rows = [
        [*([str(seed)] if several else []), *_row(node)]
        for seed, tree in trees.items()
        for node in (tree, *tree.below())
        if node.children
    ]
    return Table(caption, [*(["seed"] if several else []), *columns], rows, heads=1 + several)


def _row(node: Node) -> list[str]:
    inside = [f"{child.name} {rate(child.share / node.share if node.share else None)}" for child in node.children]
    return [node.name, rate(node.share), count(node.rows), _accuracy(node), ", ".join(inside)]


def _accuracy(node: Node) -> str:
    return rate(node.right / node.rows) if node.rows else NONE


def _figure(tree: Node, name: str, title: str) -> Figure:
    branches = [node for node in tree.below() if node.children]
    said = "; ".join(f"{', '.join(_row(node)[:1])}: {_said(node)}" for node in branches)
    caption = f"{title}: from the root to the leaf experts."
    return Figure(name, flow_chart(tree), caption, f"{caption} {said}.", tall=True)


def _said(node: Node) -> str:
    weights = ", ".join(
        f"{child.name} {rate(child.share / node.share if node.share else None)}" for child in node.children
    )
    return f"share {rate(node.share)}, {count(node.rows)} images, accuracy {_accuracy(node)}, inside {weights}"


def _classes(frame: Frame, tree: Node, name: str, title: str) -> Figure:
    branches = {node.path: node.name for node in tree.children}
    lines = [
        (branches[row["path"]], row["class"], float(row["share"]), rate(float(row["share"])))
        for _, row in frame[frame["path"].isin(list(branches))].iterrows()
    ]
    shown = make_frame(lines, ["branch", "of", "share", "text"])
    groups = list(dict.fromkeys(shown["of"]))
    few = len(branches) <= FEW
    axis = alt.Axis(
        labelAngle=0 if few else -45, ticks=False, domain=False, orient="top" if few else "bottom", labelLimit=105
    )
    base = alt.Chart(shown).encode(
        alt.X("branch:N", sort=list(branches.values()), title=None, axis=axis),
        alt.Y("of:N", sort=groups, title=None, axis=alt.Axis(ticks=False, domain=False)),
    )
    legend = alt.Legend(title="share of the class", gradientLength=WIDTH / 2)
    layers = [base.mark_rect().encode(alt.Color("share:Q", scale=blues(1.0), legend=legend))]
    if few:
        dark = alt.condition("datum.share > 0.55", alt.value("white"), alt.value(INK))
        layers.append(base.mark_text(fontSize=11).encode(text="text:N", color=dark))
    height = max(10, min(22, 420 // len(groups))) * len(groups)
    chart = alt.layer(*layers).properties(width=min(WIDTH, 110 * len(branches)), height=height)
    top = shown.loc[shown.groupby("of", sort=False)["share"].idxmax()]
    said = "; ".join(f"{row['of']}: {row['branch']} {row['text']}" for _, row in top.iterrows())
    caption = f"{title}: the share of each class that the root sends into each branch."
    return Figure(name, chart, caption, f"{caption} Largest: {said}.")
