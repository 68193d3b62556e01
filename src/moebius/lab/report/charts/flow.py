"""A tree of mixtures as a flow diagram from left to right."""

from collections.abc import Iterator
from dataclasses import dataclass

import altair as alt

from moebius.lab.report.expert_names import expert_names, experts_alone
from moebius.lab.report.figures import COLOURS, INK, WIDTH
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.gate_rows import ROOT, outermost_gate
from moebius.lab.report.numbers import count, rate
from moebius.lab.report.source import Study

# Pixels: what all images are high, a node's bar, the gap between nodes, the room for a leaf's and a branch's words.
WHOLE, BAR, GAP, LEAF, BRANCH, RIGHT, TOP, LINE = 230, 8, 12, 28, 46, 92, 36, 14
SHARED = "#777777"


@dataclass(frozen=True)
class Node:
    """An expert of a tree, or its root.

    Arguments:
        path: of the expert; `root`.
        name: what it is called.
        share: of all test images, by mean weight.
        rows, right: images that go there by the largest weight, and those of them predicted right.
        children: experts of the mixture that it is.
        shared: whether other branches hold the same expert.
    """

    path: str
    name: str
    share: float
    rows: int
    right: int
    children: tuple["Node", ...] = ()
    shared: bool = False

    def below(self) -> Iterator["Node"]:
        """All nodes below, parents before their children."""
        for child in self.children:
            yield child
            yield from child.below()

    @property
    def depth(self) -> int:
        """How many gates lie one behind the other."""
        return 1 + max(child.depth for child in self.children) if self.children else 0


def build_tree(study: Study, variant: str, frame: Frame) -> Node:
    """The tree of a variant, from one seed's lines of the table `flow`."""
    shared = {path for expert in experts_alone(study, variant) if len(expert["paths"]) > 1 for path in expert["paths"]}
    summed = frame.assign(part=frame["share"] * frame["of"]).groupby(["parent", "path"], sort=False)
    sums = summed[["part", "of", "rows", "right"]].sum().reset_index()
    gates = [gate for gate in dict.fromkeys(frame["parent"]) if gate != ROOT]

    def below(gate: str) -> tuple[Node, ...]:
        names = expert_names(study, variant, gate)
        made = []
        for place, (_, line) in enumerate(sums[sums["parent"] == gate].iterrows()):
            inner = outermost_gate(line["path"], gates)
            name = names[place] if names and place < len(names) else f"{'branch' if inner else 'expert'} {place}"
            numbers = (float(line["part"] / line["of"]), int(line["rows"]), int(line["right"]))
            children = below(inner) if inner else ()
            made.append(Node(line["path"], name, *numbers, children, line["path"] in shared))
        return tuple(made)

    children = below(ROOT)
    return Node(ROOT, ROOT, 1.0, sum(node.rows for node in children), sum(node.right for node in children), children)


def flow_chart(tree: Node) -> alt.TopLevelMixin:
    """Bands from every node to its children. Nodes keep room for their words, however thin their bands are."""
    width = WIDTH + 120 * max(0, tree.depth - 2)
    height = TOP + _slot(tree)
    places: dict[str, tuple[float, float]] = {}
    _place(tree, 0, float(TOP), tree.depth, (width - RIGHT - BAR) / tree.depth, places)
    shares = {child.path: node.share for node in (tree, *tree.below()) for child in node.children}
    bands, bars, words = [], [], []
    for node in (tree, *tree.below()):
        left, top = places[node.path]
        start = top
        for child in node.children:
            colour = _colour(tree, child)
            thick = max(0.8, child.share * WHOLE)
            bands += [(child.path, colour, *point, thick) for point in _band((left + BAR, start), places[child.path])]
            start += child.share * WHOLE
        bars.append((left, left + BAR, top, top + max(0.8, node.share * WHOLE), _colour(tree, node)))
        # The root's words stand above everything, where no branch's words can be.
        words += _words(node, shares.get(node.path, 1.0), left, float(TOP) if node is tree else top)
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
    said = make_frame(words, ["x", "y", "text", "align", "weight"])
    for align in ("left", "right"):
        for weight in ("bold", "normal"):
            own = said[(said["align"] == align) & (said["weight"] == weight)]
            limit = RIGHT - 6 if align == "left" else (width - RIGHT - BAR) / tree.depth - BAR - 8
            if len(own):
                text = alt.Chart(own).mark_text(
                    align=align, baseline="middle", fontSize=11, fontWeight=weight, color=INK, limit=max(limit, 40)
                )
                layers.append(text.encode(x, y, text="text:N"))
    return alt.layer(*layers).properties(width=width, height=height)


def _slot(node: Node) -> float:
    return float(max(node.share * WHOLE, BRANCH if node.children else LEAF, _inside(node)))


def _inside(node: Node) -> float:
    return float(sum(map(_slot, node.children)) + GAP * max(0, len(node.children) - 1))


def _place(node: Node, depth: int, top: float, last: int, step: float, places: dict[str, tuple[float, float]]) -> None:
    slot = _slot(node)
    places[node.path] = (float((depth if node.children else last) * step), top + (slot - node.share * WHOLE) / 2)
    start = top + (slot - _inside(node)) / 2
    for child in node.children:
        _place(child, depth + 1, start, last, step, places)
        start += _slot(child) + GAP


def _band(begin: tuple[float, float], end: tuple[float, float], points: int = 24) -> Iterator[tuple[float, float]]:
    for number in range(points + 1):
        along = number / points
        across = along * along * (3 - 2 * along)
        yield begin[0] + along * (end[0] - begin[0]), begin[1] + across * (end[1] - begin[1])


def _colour(tree: Node, node: Node) -> str:
    if node is tree:
        return "#444444"
    if node.shared:
        return SHARED
    branch = next(place for place, top in enumerate(tree.children) if node is top or node in top.below())
    return COLOURS[branch % len(COLOURS)]


def _words(node: Node, parent: float, left: float, top: float) -> list[tuple[float, float, str, str, str]]:
    right = f"accuracy {rate(node.right / node.rows)}" if node.rows else ""
    middle = top + node.share * WHOLE / 2
    if node.path == ROOT:
        lines = [f"{count(node.rows)} images", right]
        return [(0.0, top - 6 - LINE * (1 - place), line, "left", "normal") for place, line in enumerate(lines)]
    if not node.children:
        spot, weight = left + BAR + 5, f"weight {rate(node.share / parent if parent else None)}"
        return [(spot, middle - 7, node.name, "left", "bold"), (spot, middle + 7, weight, "left", "normal")]
    lines = [node.name, f"{rate(node.share)} ({count(node.rows)})", right]
    return [
        (left - 6, middle + LINE * (place - 1), line, "right", "normal" if place else "bold")
        for place, line in enumerate(lines)
    ]
