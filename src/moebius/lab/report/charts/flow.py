"""Flow diagram of nested mixtures, from the outermost gate at the left to the leaf experts at the right."""

from collections.abc import Iterator
from dataclasses import dataclass

import altair as alt

from moebius.lab.report.expert_names import expert_names, experts_alone
from moebius.lab.report.figures import COLOURS, INK, WIDTH
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.gate_names import inner_gate
from moebius.lab.report.numbers import count, rate
from moebius.lab.report.source import Study

# Pixels: height of all rows together, width of a node's bar, gap between two nodes, least height of a leaf and of a
# branch (two and three lines of text), margins at the right and at the top, height of a line of text.
ALL_IMAGES, BAR, GAP, LEAF, BRANCH, RIGHT, TOP, LINE = 230, 8, 12, 28, 46, 92, 36, 14
SHARED = "#777777"


@dataclass(frozen=True)
class Node:
    """An expert of nested mixtures, or the outermost gate, which is the root of the tree.

    Arguments:
        path: module path of the expert; the name of the outermost gate.
        name: its name on the page.
        share: share of all test rows that reach it, by mean weight.
        rows, right: number of rows that reach it by the largest weights, where ties divide rows, and the sum of
            their scores.
        children: its experts, if it is a mixture.
        shared: whether the same expert is also in another branch.
        measure: the score in words.
    """

    path: str
    name: str
    share: float
    rows: float | int
    right: int | float
    children: tuple["Node", ...] = ()
    shared: bool = False
    measure: str = "accuracy"

    def below(self) -> Iterator["Node"]:
        """All nodes below, parents before their children."""
        for child in self.children:
            yield child
            yield from child.below()

    @property
    def depth(self) -> int:
        """Number of gates on the longest path to a leaf."""
        return 1 + max(child.depth for child in self.children) if self.children else 0


def build_tree(study: Study, variant: str, gate: str, frame: Frame) -> Node:
    """The tree below an outermost gate of a variant, from the lines of one seed in the table `flow`."""
    shared_paths = {
        path for expert in experts_alone(study, variant) if len(expert["paths"]) > 1 for path in expert["paths"]
    }
    summed = frame.assign(part=frame["share"] * frame["of"]).groupby(["parent", "path"], sort=False)
    sums = summed[["part", "of", "rows", "right"]].sum().reset_index()
    gates = list(dict.fromkeys(frame["parent"]))

    def build_children(gate: str) -> tuple[Node, ...]:
        names = expert_names(study, variant, gate)
        nodes = []
        for place, (_, line) in enumerate(sums[sums["parent"] == gate].iterrows()):
            inner = inner_gate(line["path"], gates)
            name = names[place] if names and place < len(names) else f"{'branch' if inner else 'expert'} {place}"
            numbers = (float(line["part"] / line["of"]), float(line["rows"]), float(line["right"]))
            children = build_children(inner) if inner else ()
            nodes.append(Node(line["path"], name, *numbers, children, line["path"] in shared_paths, study.measure))
        return tuple(nodes)

    children = build_children(gate)
    rows, right = (sum(getattr(node, name) for node in children) for name in ("rows", "right"))
    return Node(gate, gate, 1.0, rows, right, children, measure=study.measure)


def flow_chart(tree: Node) -> alt.TopLevelMixin:
    """Bands from every node to its children. Nodes are far enough apart for their texts, however thin the bands are."""
    width = WIDTH + 120 * max(0, tree.depth - 2)
    height = TOP + _node_height(tree)
    places: dict[str, tuple[float, float]] = {}
    _place_nodes(tree, 0, float(TOP), tree.depth, (width - RIGHT - BAR) / tree.depth, places)
    shares = {child.path: node.share for node in (tree, *tree.below()) for child in node.children}
    bands, bars, texts = [], [], []
    for node in (tree, *tree.below()):
        left, top = places[node.path]
        start = top
        for child in node.children:
            colour = _node_colour(tree, child)
            thickness = max(0.8, child.share * ALL_IMAGES)
            bands += [
                (child.path, colour, *point, thickness)
                for point in _band_points((left + BAR, start), places[child.path])
            ]
            start += child.share * ALL_IMAGES
        bars.append((left, left + BAR, top, top + max(0.8, node.share * ALL_IMAGES), _node_colour(tree, node)))
        # The texts of the root are above the diagram, where no branch has texts.
        texts += _root_texts(node) if node is tree else _node_texts(node, shares[node.path], left, top)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False))
    scale = alt.Scale(domain=[height, 0], nice=False)
    y = alt.Y("y:Q", axis=None, scale=scale)
    colour = alt.Color("colour:N", scale=None)
    areas = make_frame([(*line[:4], line[3] + line[4]) for line in bands], ["path", "colour", "x", "y", "end"])
    blocks = make_frame(bars, ["x", "right", "y", "end", "colour"])
    layers: list[alt.Chart] = [
        alt.Chart(areas).mark_area(opacity=0.3).encode(x, y, alt.Y2("end:Q"), colour, detail="path:N"),
        alt.Chart(blocks).mark_rect().encode(x, alt.X2("right:Q"), y, alt.Y2("end:Q"), colour),
    ]
    labels = make_frame(texts, ["x", "y", "text", "align", "weight"])
    for align in ("left", "right"):
        for weight in ("bold", "normal"):
            aligned = labels[(labels["align"] == align) & (labels["weight"] == weight)]
            limit = RIGHT - 6 if align == "left" else (width - RIGHT - BAR) / tree.depth - BAR - 8
            if len(aligned):
                text = alt.Chart(aligned).mark_text(
                    align=align, baseline="middle", fontSize=11, fontWeight=weight, color=INK, limit=max(limit, 40)
                )
                layers.append(text.encode(x, y, text="text:N"))
    return alt.layer(*layers).properties(width=width, height=height)


def _node_height(node: Node) -> float:
    return float(max(node.share * ALL_IMAGES, BRANCH if node.children else LEAF, _children_height(node)))


def _children_height(node: Node) -> float:
    return float(sum(map(_node_height, node.children)) + GAP * max(0, len(node.children) - 1))


def _place_nodes(
    node: Node, depth: int, top: float, last: int, step: float, places: dict[str, tuple[float, float]]
) -> None:
    """Add the upper left corner of the bar of every node to `places`; all leaves are at depth `last`."""
    height = _node_height(node)
    places[node.path] = (float((depth if node.children else last) * step), top + (height - node.share * ALL_IMAGES) / 2)
    start = top + (height - _children_height(node)) / 2
    for child in node.children:
        _place_nodes(child, depth + 1, start, last, step, places)
        start += _node_height(child) + GAP


def _band_points(
    begin: tuple[float, float], end: tuple[float, float], points: int = 24
) -> Iterator[tuple[float, float]]:
    for number in range(points + 1):
        along = number / points
        across = along * along * (3 - 2 * along)
        yield begin[0] + along * (end[0] - begin[0]), begin[1] + across * (end[1] - begin[1])


def _node_colour(tree: Node, node: Node) -> str:
    if node is tree:
        return "#444444"
    if node.shared:
        return SHARED
    branch = next(place for place, top in enumerate(tree.children) if node is top or node in top.below())
    return COLOURS[branch % len(COLOURS)]


def _score_text(node: Node) -> str:
    return f"{node.measure} {rate(node.right / node.rows)}" if node.rows else ""


def _root_texts(tree: Node) -> list[tuple[float, float, str, str, str]]:
    lines = [f"{count(tree.rows)} rows", _score_text(tree)]
    return [(0.0, float(TOP) - 6 - LINE * (1 - place), line, "left", "normal") for place, line in enumerate(lines)]


def _node_texts(node: Node, parent: float, left: float, top: float) -> list[tuple[float, float, str, str, str]]:
    middle = top + node.share * ALL_IMAGES / 2
    if not node.children:
        spot, weight = left + BAR + 5, f"weight {rate(node.share / parent if parent else None)}"
        return [(spot, middle - 7, node.name, "left", "bold"), (spot, middle + 7, weight, "left", "normal")]
    lines = [node.name, f"{rate(node.share)} ({count(node.rows)})", _score_text(node)]
    return [
        (left - 6, middle + LINE * (place - 1), line, "right", "normal" if place else "bold")
        for place, line in enumerate(lines)
    ]
