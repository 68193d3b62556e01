"""Sections about experts that were trained before the gate, on figures that can be checked by hand."""

import importlib
import json
import re
from itertools import pairwise

import pytest

from moebius.lab.report.blocks import Heading, Panels, Table, Text
from moebius.lab.report.charts.flow import Node, _node_height, _place_nodes
from moebius.lab.report.expert_names import class_list, expert_names, title_of
from moebius.lab.report.sections import curves, gates, specialists, stages
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate, write_tables

# The room's attribute `flow` is the measure, not its file.
flow = importlib.import_module("moebius.lab.diagnostics.flow")


def edit_results(out, change):
    results = json.loads((out / "results.json").read_text())
    change(results)
    (out / "results.json").write_text(json.dumps(results))


def section_blocks(module, out):
    section = module.section(tabulate(read_study(out)))
    assert section is not None
    return section.blocks


def tables(blocks):
    return [block for block in blocks if isinstance(block, Table)]


def figures(blocks):
    return [figure for block in blocks if isinstance(block, Panels) for figure in block.figures]


def names_of(blocks):
    return [figure.name for figure in figures(blocks)]


@pytest.mark.parametrize("maker", ["make_pairs", "make_tree"])
def test_builds_a_whole_page(request, holds_together, maker):
    text = holds_together(request.getfixturevalue(maker)(seeds=1))
    assert "What was trained first" in text
    assert ("from the outermost gate to the leaf experts" in text) == (maker == "make_tree")


def test_a_stage_is_a_line_with_its_own_classes(make_tree):
    def change(results):
        for stage in results["stages"]:
            stage["accuracy"]["test"] = 0.9 + 0.01 * stage["seed"]

    out = make_tree(seeds=3)
    edit_results(out, change)
    (table,) = tables(section_blocks(stages, out))
    lines = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(lines) == ["base", "first-gate", "artificial", "natural"]
    assert lines["base"]["classes"] == "all 10"
    assert lines["artificial"]["classes"] == "airplane, automobile, ship and truck"
    assert lines["first-gate"]["classes"] == "airplane, automobile, ship and truck against the others"
    assert lines["natural"]["train rows"] == "27,000"
    # 0.91 ± t(.975, 2) · 0.01 / √3 = 0.91 ± 0.0248
    assert lines["natural"]["test"] == ".910 [.885, .935]"


def test_stages_without_validation_draw_their_test_accuracy(make_pairs):
    def change(results):
        for stage in results["stages"]:
            del stage["accuracy"]["validation"]
            for line in stage["epochs"]:
                del line["validation"]

    out = make_pairs(seeds=1)
    edit_results(out, change)
    blocks = section_blocks(stages, out)
    (figure,) = figures(blocks)
    assert figure.caption.startswith("Test accuracy by epoch")
    assert {row[4] for row in tables(blocks)[0].rows} == {"–"}


def test_stages_that_say_nothing_but_their_name_are_listed(make_pairs):
    out = make_pairs(seeds=1)
    edit_results(out, lambda results: results.update(stages=[{"stage": "a", "seed": 0}]))
    blocks = section_blocks(stages, out)
    assert figures(blocks) == []
    assert list(tables(blocks)[0].rows[0][:2]) == ["a", "–"]


def test_variants_over_the_same_experts_are_shown_together(make_pairs):
    blocks = section_blocks(specialists, make_pairs(seeds=2))
    heads = [block.text for block in blocks if isinstance(block, Heading)]
    # The network that stands alone has one expert: itself.
    assert heads == ["standard, sparse and uniform", "Headroom"]
    experts, headroom = tables(blocks)
    assert [row[:2] for row in experts.rows[:2]] == [
        ["pair-0-8", "airplane and ship"],
        ["pair-1-9", "automobile and truck"],
    ]
    assert experts.columns[2:5] == ["all rows", "own", "outside"]
    assert {row[4] for row in experts.rows} == {"0"}
    assert [row[0] for row in headroom.rows] == ["standard", "sparse", "uniform"]


def test_variants_whose_experts_differ_are_apart(make_pairs):
    def change(results):
        for run in results["runs"]:
            if run["variant"] == "sparse":
                run["experts_alone"][0]["accuracy"] += 0.01

    out = make_pairs(seeds=1)
    edit_results(out, change)
    heads = [block.text for block in section_blocks(specialists, out) if isinstance(block, Heading)]
    assert heads == ["standard and uniform", "sparse", "Headroom"]


@pytest.mark.parametrize("validated", [True, False])
def test_headroom_is_what_the_oracle_has_over_the_variant(make_pairs, validated):
    def change(results):
        for run in results["runs"]:
            run["oracle"], run["accuracy"]["test"] = 0.95, 0.80 + 0.01 * run["seed"]
            for place, expert in enumerate(run["experts_alone"]):
                expert["accuracy"] = 0.1 + 0.01 * place
                # What is best on validation rows is not what is best on test rows.
                expert["validation_accuracy"] = (0.3 if place == 4 else 0.1) if validated else None

    out = make_pairs(seeds=3)
    edit_results(out, change)
    blocks = section_blocks(specialists, out)
    cells = dict(zip(tables(blocks)[1].columns, tables(blocks)[1].rows[0], strict=True))
    assert cells["best single expert"] == ("pair-4-7" if validated else "pair-4-5")
    assert cells["its test accuracy"].startswith(".140" if validated else ".190")
    assert cells["headroom"] == "+.140 [+.115, +.165]"
    last_text = [block.text for block in blocks if isinstance(block, Text)][-1]
    assert ("chosen on the validation rows" in last_text) == validated
    assert ("which flatters it" in last_text) == (not validated)


def test_a_mixture_that_passes_its_oracle_is_said_to(make_pairs):
    out = make_pairs(seeds=1)
    edit_results(out, lambda results: [run.update(oracle=0.3) for run in results["runs"]])
    blocks = section_blocks(specialists, out)
    assert tables(blocks)[1].rows[0][-1].startswith("−.")
    assert any("does better than any choice of one expert" in block.text for block in blocks if isinstance(block, Text))


def test_experts_trained_with_their_gate_are_shown_on_demand(make_pairs):
    def change(results):
        for run in results["runs"]:
            for expert in run["experts_alone"]:
                expert |= {
                    "name": None,
                    "classes": None,
                    "frozen": False,
                    "own": None,
                    "outside": None,
                    "confidence": None,
                }

    out = make_pairs(seeds=1)
    edit_results(out, change)
    blocks = section_blocks(specialists, out)
    assert [block.kind for block in blocks[1:2]] == ["details"]
    (table,) = tables(blocks[1].blocks)
    assert table.columns == ["expert", "knows", "all rows"]
    assert list(table.rows[3][:2]) == ["expert 3", "all"]


def test_experts_are_called_by_stage_class_or_branch(make_pairs, make_tree):
    pairs, trees = read_study(make_pairs(seeds=1)), read_study(make_tree(seeds=1))
    assert expert_names(pairs, "standard", "gate")[:2] == ["pair-0-8", "pair-1-9"]
    assert expert_names(pairs, "gate-alone", "gate") is None
    # The base is in both branches: it names neither.
    assert expert_names(trees, "tree", "gate") == ["artificial", "natural"]
    assert expert_names(trees, "tree", "experts.1.gate") == ["base", "natural"]
    assert title_of(trees, "tree", "experts.1.gate") == "tree, branch natural (experts.1.gate)"
    assert title_of(trees, "tree", "gate") == "tree"


def test_equal_names_are_told_apart(make_pairs):
    def change(results):
        for expert in results["runs"][0]["experts_alone"]:
            expert["name"] = None
        results["runs"][0]["experts_alone"][5]["classes"] = ["airplane", "ship"]
        results["runs"][0]["experts_alone"][6]["classes"] = None

    out = make_pairs(seeds=1)
    edit_results(out, change)
    names = expert_names(read_study(out), "standard", "gate")
    assert [names[place] for place in (0, 1, 5, 6)] == [
        "airplane, ship (0)", "automobile, truck", "airplane, ship (5)", "expert 6",
    ]  # fmt: skip


def test_classes_are_listed_as_short_as_can_be():
    among = list("abcdefghijkl")
    assert class_list(among, among) == "all 12"
    assert class_list(["a", "c"], among) == "a and c"
    assert class_list(among[2:], among) == "all but a and b"
    assert class_list(among[:6], among) == "a, b, c and 3 more"


def test_no_row_is_lost_or_doubled_in_a_tree(make_tree):
    frame = tabulate(read_study(make_tree(seeds=1))).table("flow", seed=0)
    assert set(frame["variant"]) == {"tree", "tree-soft"}
    leaves = frame[frame["path"].str.contains(r"experts\.\d\.experts")]
    for nodes in (leaves, frame[frame["parent"] == "gate"]):
        sums = nodes.groupby(["variant", "class"])[["share", "rows"]].sum()
        assert sums["share"].to_numpy() == pytest.approx(1)
        assert sums.groupby("variant")["rows"].sum().tolist() == [1000, 1000]


def test_the_tree_names_its_branches_and_says_what_they_get(make_tree):
    out = make_tree(seeds=2)
    blocks = section_blocks(flow, out)
    table, _ = tables(blocks)
    frame = tabulate(read_study(out)).table("flow", variant="tree", seed=0, path="experts.0")
    assert [row[0] for row in table.rows] == ["gate", "artificial", "natural"]
    assert table.rows[1][2] == str(frame["rows"].sum())
    assert table.rows[1][4].startswith("base ")
    weights = [float(part) for part in re.findall(r" (\.\d+)", table.rows[2][4])]
    assert sum(weights) == pytest.approx(1, abs=0.002)
    assert [name for name in names_of(blocks) if name.startswith("tree-")] == ["tree-tree", "tree-tree-soft"]


def test_flat_gates_have_no_tree(make_pairs):
    names = names_of(section_blocks(flow, make_pairs(seeds=1)))
    assert names
    assert all(name.startswith("flow-") for name in names)


@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 1.0])
def test_words_of_a_tree_never_overlap(share):
    leaves = tuple(Node(f"{place}", "leaf", share / 4, 1, 1) for place in range(4))
    top = Node("a", "branch", share, 1, 1, leaves), Node("b", "leaf", 1 - share, 1, 1)
    root, places = Node("gate", "gate", 1.0, 2, 2, top), {}
    _place_nodes(root, 0, 0.0, root.depth, 100.0, places)
    middles = [places[node.path][1] + node.share * 115 for node in root.below() if not node.children]
    assert all(below - above >= 28 for above, below in pairwise(middles))
    assert max(middles) < _node_height(root)


def test_an_untrained_variant_is_a_level_in_the_curves(make_pairs):
    out = make_pairs(seeds=1)
    whole, zoom, _ = figures(section_blocks(curves, out))
    assert "never trained" in whole.caption
    # The level at .55 does not decide where the curves are zoomed to.
    assert float(re.findall(r"\.\d+", zoom.caption)[0]) > 0.6
    assert not any("uniform" in figure.alt for figure in figures(section_blocks(gates, out)))


def test_curves_hold_where_nothing_was_trained(make_pairs):
    out = make_pairs(seeds=1)
    edit_results(
        out, lambda results: results.update(runs=[run for run in results["runs"] if run["variant"] == "uniform"])
    )
    whole, *_ = figures(section_blocks(curves, out))
    assert "never trained" not in whole.caption
    assert gates.section(tabulate(read_study(out))) is None


def test_curves_hold_with_a_variant_that_has_no_epochs(make_pairs):
    out = make_pairs(seeds=1)
    edit_results(out, lambda results: [run.update(epochs=[]) for run in results["runs"] if run["variant"] == "uniform"])
    assert "uniform" not in figures(section_blocks(curves, out))[0].alt


def test_the_tables_are_written(make_tree):
    out = make_tree(seeds=1)
    write_tables(tabulate(read_study(out)))
    heads = {path.stem: path.read_text().splitlines()[0] for path in (out / "tables").glob("*.csv")}
    assert heads["stages"].startswith("stage,seed,epoch,")
    assert heads["stage_epochs"] == "stage,seed,epoch,split,measure,value"
    assert heads["experts_alone_by_class"] == "variant,seed,path,class,accuracy"
    assert heads["flow"] == "variant,seed,split,path,parent,class,of,share,rows,right"
    assert "trained" not in (out / "results.csv").read_text().splitlines()[0].split(",")
