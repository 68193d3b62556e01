"""Flow: how rows pass through nested gates, from the outermost gate to the leaf experts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from moebius.lab.diagnostics._arrays import row_shares, row_wins, whole_counts
from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.flow import Node, build_tree, flow_chart
from moebius.lab.report.charts.stages_flow import Band, stages_chart
from moebius.lab.report.expert_names import expert_label, expert_names, title_of
from moebius.lab.report.figures import COLOURS, Figure
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.gate_names import expert_path, inner_gate, outer_gates
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.numbers import NONE, count, rate
from moebius.lab.report.queries import at_first_gates, figure_name
from moebius.lab.report.shown_variants import others_text, shown_variants
from moebius.lab.report.source import Study

ORDER = 29
# Experts with a smaller share of all rows, and of an even share, are one in the drawing.
LEAST_SHARE, LEAST_OF_EVEN = 0.005, 0.1
COLUMNS = ("path", "parent", "class", "of", "share", "rows", "right")
Gates = Mapping[str, Float[np.ndarray, "T _"]]


def flow(gates: Gates, labels: Int[np.ndarray, " T"], scores: Shaped[np.ndarray, " T"], names: Sequence[str]) -> Frame:
    """How much of each class reaches each expert of nested mixtures.

    reach(model) = 1;  reach(child e) = reach(parent) · |w_e| / Σ_j |w_j|, 0 for rows that the parent's gate never saw

    Arguments:
        gates: name of each gate → its weights, NaN in rows that it never saw.
        labels: true classes, or other groups, as indices into `names`.
        scores: of the whole model for each row: whether it is predicted right, or another task's score.
        names: names of the classes.

    Returns:
        Columns path (of the expert), parent (its mixture's gate), class, of (rows of the class), share (mean reach over
        them), rows (that go to the expert when every gate follows its largest weight; a tie divides the row), right
        (the sum of their scores: how many of them the whole model predicts right). Parents come before their children.

    Example:
        >>> gates = {"gate": np.array([[1.0, 0.0]]), "experts.0.gate": np.array([[0.25, 0.75]])}
        >>> frame = flow(gates, np.array([0]), np.array([True]), ["cat"])
        >>> print(frame[["path", "share", "rows"]].to_string(index=False))
                       path  share  rows
                  experts.0   1.00     1
        experts.0.experts.0   0.25     0
        experts.0.experts.1   0.75     1
                  experts.1   0.00     0

    Reference: ours.
    """
    classes = len(names)
    of_C = np.bincount(labels, minlength=classes)
    lines: list[tuple] = []
    all_reach, all_won = np.ones(len(labels)), np.ones(len(labels))
    walks = [_walk_experts(gates, gate, all_reach, all_won) for gate in outer_gates(list(gates))]
    for path, parent, reach_T, won_T in chain(*walks):
        reach_C = np.bincount(labels, reach_T, minlength=classes)
        won_C = whole_counts(np.bincount(labels, won_T, minlength=classes)).tolist()
        right_C = np.bincount(labels, won_T * scores, minlength=classes)
        lines += [
            (path, parent, name, int(of_C[c]), float(reach_C[c] / of_C[c]), won_C[c], float(right_C[c]))
            for c, name in enumerate(names)
            if of_C[c]
        ]
    return make_frame(lines, COLUMNS)


def split_table(rows: SplitRows) -> Frame | None:
    """The flow of the test split; None for the training split and for models without nested gates."""
    if rows.split != "test" or len(outer_gates(list(rows.gates))) == len(rows.gates):
        return None
    groups = (rows.labels, rows.class_names) if rows.class_names else (rows.domains, rows.domain_names)
    return flow(rows.gates, groups[0], rows.scores, groups[1])


def section(study: Study) -> Section | None:
    """The flow from data sets to the experts of first gates; for nested gates also the tree and its branches."""
    frame, shares = study.table("flow", split="test"), at_first_gates(study, study.table("class_flow", split="test"))
    blocks: list[Block] = []
    figures: list[Figure] = []
    variants = [] if shares.empty else list(dict.fromkeys(shares["variant"]))
    shown = shown_variants(study, variants)
    for variant in shown:
        of_variant = shares[shares["variant"] == variant]
        figure = _stages_figure(study, variant, of_variant[of_variant["seed"] == of_variant["seed"].min()])
        figures += [] if figure is None else [figure]
    if figures:
        text = (
            "Test rows of the first seed, from data set over class to the expert of the first gate. The width of a "
            "band is a share of all rows; where a gate mixes, a row is divided as its weights say."
        )
        blocks += [Text(text + others_text(variants, shown, "tables/class_flow.csv")), Panels(figures)]
    if not frame.empty:
        blocks.append(
            Text(
                "Nested gates, from the outermost gate to the leaf experts. In brackets the rows for which a branch "
                f"has the largest weight; the {study.measure} is the whole model's on them."
            )
        )
    for variant in study.variants if not frame.empty else ():
        lines = frame[frame["variant"] == variant]
        for gate in outer_gates(list(dict.fromkeys(lines["parent"]))):
            blocks += _gate_blocks(study, variant, gate, lines)
    return Section("tree", "The flow of rows", blocks) if blocks else None


def _stages_figure(study: Study, variant: str, frame: Frame) -> Figure | None:
    """Bands from data sets over classes to experts; stages of one node are left out, and experts beyond the palette
    or with hardly a row are one.
    """
    gate = str(frame["gate"].iloc[0])
    names, title = expert_names(study, variant, gate), title_of(study, variant, gate)
    frame = frame.assign(part=frame["share"] * frame["rows"])
    total = float(frame["part"].sum())
    if not total:
        return None
    frame = frame[frame["part"] > 0]
    by_expert = frame.groupby("expert")["part"].sum()
    chosen = _drawn_experts(by_expert)
    rest = f"{len(by_expert) - len(chosen)} more experts"
    labels = {expert: expert_label(names, int(expert)) if expert in chosen else rest for expert in by_expert.index}
    frame = frame.assign(label=[labels[expert] for expert in frame["expert"]])
    domains, classes = (list(dict.fromkeys(frame[column])) for column in ("domain", "class"))
    columns = [column for column, nodes in (("domain", domains), ("class", classes)) if len(nodes) > 1]
    columns = [*(columns or ["domain"]), "label"]
    # Names may be the same in two stages, and are the same nodes in none.
    bands = [
        Band(stage, str(begin), str(end), float(part) / total)
        for stage, (left, right) in enumerate(pairwise(columns))
        for (begin, end), part in frame.groupby([left, right], sort=False)["part"].sum().items()
    ]
    experts = list(dict.fromkeys([*(labels[expert] for expert in chosen), *labels.values()]))
    colours = {label: colour for label, colour in zip(experts, COLOURS, strict=False) if label != rest}
    stages = [list(dict.fromkeys(frame[column])) for column in columns[:-1]]
    # An expert stands where most of its rows come from, so that few bands cross.
    places = frame.assign(place=frame["part"] * frame[columns[-2]].map(stages[-1].index)).groupby("label")
    means = places["place"].sum() / places["part"].sum()
    stages.append(sorted(experts, key=lambda label: (label == rest, means[label])))
    chart = stages_chart(stages, bands, colours, _short_names(frame) if "domain" in columns else {})
    parts = frame.groupby("label", sort=False)["part"].sum() / total
    words = {"domain": "data sets", "class": "classes", "label": "experts"}
    caption = (
        f"{title}, seed {int(frame['seed'].iloc[0])}: from {' over '.join(words[c] for c in columns[:-1])} to experts."
    )
    largest_text = "; ".join(f"{label} {rate(float(part))}" for label, part in parts.items())
    return Figure(figure_name(study, "flow", variant, gate), chart, caption, f"{caption} Shares: {largest_text}.")


def _drawn_experts(parts: pd.Series) -> list[int]:
    """The experts with a node of their own: no more than there are colours, and none with hardly a row, unless it is
    the only one that would be left out.

    Example:
        >>> _drawn_experts(pd.Series([50.0, 49.8, 0.1, 0.1])), _drawn_experts(pd.Series([50.0, 49.9, 0.1]))
        ([0, 1], [0, 1, 2])
        >>> len(_drawn_experts(pd.Series([1.0] * 300)))
        11
    """
    most = len(COLOURS) if len(parts) <= len(COLOURS) else len(COLOURS) - 1
    largest = parts.sort_values(ascending=False, kind="stable").iloc[:most]
    seen = largest[largest >= min(LEAST_SHARE, LEAST_OF_EVEN / len(parts)) * parts.sum()]
    is_one_left = len(parts) - len(seen) == 1
    return sorted(largest.index if is_one_left else seen.index)


def _short_names(frame: Frame) -> dict[str, str]:
    """Class → its name without that of its data set, which stands before it in the drawing.

    Example:
        >>> _short_names(make_frame([("mnist", "mnist 7"), ("cifar10", "cifar10 cat")], ["domain", "class"]))
        {'mnist 7': '7', 'cifar10 cat': 'cat'}
    """
    pairs = frame[["domain", "class"]].drop_duplicates().astype(str).itertuples(index=False, name=None)
    return {name: name.removeprefix(f"{domain} ") for domain, name in pairs}


def _gate_blocks(study: Study, variant: str, gate: str, lines: Frame) -> list[Block]:
    """The first seed's tree below an outermost gate, and a table of the other seeds' branches."""
    trees = {int(seed): build_tree(study, variant, gate, of_seed) for seed, of_seed in lines.groupby("seed")}
    seed = min(trees)
    tree, title = trees.pop(seed), title_of(study, variant, gate)
    first_title = f"{title}, seed {seed}"
    flow_name = figure_name(study, "tree", variant, gate)
    table = _branch_table({seed: tree}, f"{first_title}: branches, test rows")
    blocks: list[Block] = [Heading(title), table, Panels([_flow_figure(tree, flow_name, first_title)])]
    if trees:
        blocks.append(Details(f"{title}: the other seeds", [_branch_table(trees, f"{title}: branches, test rows")]))
    return blocks


def _branch_table(trees: dict[int, Node], caption: str) -> Table:
    measure = next(iter(trees.values())).measure
    columns = ["branch", "share", "rows", f"{measure} on them", "mean weights inside"]
    several = len(trees) > 1
    rows = [
        [*([str(seed)] if several else []), *_branch_cells(node)]
        for seed, tree in trees.items()
        for node in (tree, *tree.below())
        if node.children
    ]
    return Table(caption, [*(["seed"] if several else []), *columns], rows, heads=1 + several)


def _branch_cells(node: Node) -> list[str]:
    return [node.name, rate(node.share), count(node.rows), _mean_score(node), _weights_inside(node)]


def _weights_inside(node: Node) -> str:
    """Mean weight of each expert of the branch, over the rows that reach the branch."""
    return ", ".join(
        f"{child.name} {rate(child.share / node.share if node.share else None)}" for child in node.children
    )


def _mean_score(node: Node) -> str:
    return rate(node.right / node.rows) if node.rows else NONE


def _flow_figure(tree: Node, name: str, title: str) -> Figure:
    branches = "; ".join(
        f"{node.name}: share {rate(node.share)}, {count(node.rows)} rows, {tree.measure} {_mean_score(node)}, "
        f"inside {_weights_inside(node)}"
        for node in tree.below()
        if node.children
    )
    caption = f"{title}: from the outermost gate to the leaf experts."
    return Figure(name, flow_chart(tree), caption, f"{caption} {branches}.", tall=True)


def _walk_experts(
    gates: Gates, gate: str, reach_T: Float[np.ndarray, " T"], won_T: Float[np.ndarray, " T"]
) -> Iterator[tuple[str, str, Float[np.ndarray, " T"], Float[np.ndarray, " T"]]]:
    """Path, gate, reach and won parts of rows of every expert below a gate, given those of its mixture."""
    weights_TE = gates[gate]
    filled_TE = np.where(np.isfinite(weights_TE), weights_TE, 0.0)
    share_TE = row_shares(filled_TE)
    wins_TE = row_wins(filled_TE) * np.isfinite(weights_TE).all(1, keepdims=True)
    for expert in range(weights_TE.shape[1]):
        path = expert_path(gate, expert)
        reached_T, wins_T = reach_T * share_TE[:, expert], won_T * wins_TE[:, expert]
        yield path, gate, reached_T, wins_T
        inner = inner_gate(path, list(gates))
        if inner is not None:
            yield from _walk_experts(gates, inner, reached_T, wins_T)
