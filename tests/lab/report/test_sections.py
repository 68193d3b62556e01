import importlib
import json
import pkgutil
import re

import pytest

from moebius.lab import diagnostics
from moebius.lab.report import sections
from moebius.lab.report.blocks import Heading, Points, Table
from moebius.lab.report.expert_names import title_of
from moebius.lab.report.sections import answer, curves, expert_count, results, sections_of
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate

SECTIONS = {
    info.name: importlib.import_module(f"{room.__name__}.{info.name}")
    for room in (sections, diagnostics)
    for info in pkgutil.iter_modules(room.__path__)
}
SECTIONS = {name: module for name, module in SECTIONS.items() if hasattr(module, "section")}


def edit_runs(out, change):
    results_file = json.loads((out / "results.json").read_text())
    for run in results_file["runs"]:
        change(run)
    (out / "results.json").write_text(json.dumps(results_file))


def answer_text(out) -> str:
    section = answer.section(tabulate(read_study(out)))
    assert section is not None
    (points,) = section.blocks
    assert isinstance(points, Points)
    return "\n".join(f"{lead} {rest}" for lead, rest in points.points)


def test_every_section_has_its_own_place_and_name(make_study):
    orders = [module.ORDER for module in SECTIONS.values()]
    assert len(set(orders)) == len(orders)
    page = sections_of(tabulate(read_study(make_study(seeds=1, epochs=1))))
    assert len({section.name for section in page}) == len(page)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_without_data_is_left_out(make_study, name):
    out = make_study(variants={"single": 1}, seeds=1, epochs=1)
    (out / "single" / "seed-0" / "routing.parquet").unlink()
    edit_runs(out, lambda run: [run.pop(key) for key in list(run) if key not in ("variant", "seed")])
    section = SECTIONS[name].section(tabulate(read_study(out)))
    assert (section is None) == (name != "appendix")


def test_the_answer_names_the_best_with_its_interval(make_study):
    out = make_study(variants={"low": 1, "high": 2}, seeds=3, epochs=1)
    edit_runs(
        out, lambda run: run["accuracy"].update(test={"low": 0.5, "high": 0.7}[run["variant"]] + 0.01 * run["seed"])
    )
    text = answer_text(out)
    assert "Best on test: high .710 [.685, .735] (mean of 3 seeds, 95 % interval)." in text
    assert "Clear of the others: the interval overlaps with no other variant's." in text


def test_the_answer_says_when_the_order_may_be_chance(make_study):
    out = make_study(variants={"low": 1, "high": 2}, seeds=3, epochs=1)
    edit_runs(
        out, lambda run: run["accuracy"].update(test={"low": 0.69, "high": 0.7}[run["variant"]] + 0.01 * run["seed"])
    )
    assert "Not settled: the interval overlaps with low, so that order may be chance." in answer_text(out)


def test_the_answer_of_one_seed_claims_no_order(make_study):
    text = answer_text(make_study(variants={"low": 1, "high": 2}, seeds=1, epochs=1))
    assert "(one seed)" in text
    assert "the order may be chance" in text


def test_the_answer_finds_ignored_experts(make_study):
    import pandas as pd

    out = make_study(variants={"conv": 2}, seeds=3, epochs=1)
    for seed in range(3):
        path = out / "conv" / f"seed-{seed}" / "routing.parquet"
        frame = pd.read_parquet(path)
        frame["gate_0"], frame["gate_1"] = frame["gate_0"] * 0 + 1, frame["gate_1"] * 0
        frame.to_parquet(path)
    assert "conv: expert 1 is ignored in 3 of 3 seeds." in answer_text(out)


def test_the_results_table_marks_the_best_and_pairs_seeds(make_study):
    out = make_study(variants={"low": 1, "high": 2}, seeds=2, epochs=1)
    edit_runs(
        out, lambda run: run["accuracy"].update(test={"low": 0.5, "high": 0.75}[run["variant"]] + 0.1 * run["seed"])
    )
    section = results.section(tabulate(read_study(out)))
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert list(table.marked) == [1]
    # The seeds move both variants alike, so the paired difference does not vary though the intervals overlap widely.
    assert table.rows[0][table.columns.index("minus high, paired")] == "−.250 [−.250, −.250]"
    assert table.rows[1][table.columns.index("test, every seed")] == ".750 .850"


def test_curves_follow_the_recipes_groups(make_study):
    groups = [{"title": "No loss", "variants": ["a", "b", "gone"]}, {"title": "Entropy", "variants": ["c"]}]
    out = make_study(variants={"a": 1, "b": 2, "c": 2}, seeds=1, epochs=3, report={"curves": groups})
    section = curves.section(tabulate(read_study(out)))
    assert section is not None
    names = [figure.name for block in section.blocks if block.kind == "panels" for figure in block.figures]
    assert names == ["curves-no-loss", "curves-no-loss-zoom", "curves-entropy", "curves-entropy-zoom"]


def test_the_zoom_lies_where_the_curves_end(make_study):
    out = make_study(variants={"a": 1}, seeds=1, epochs=20)
    study = tabulate(read_study(out))
    section = curves.section(study)
    assert section is not None
    _, zoom = section.blocks[0].figures  # pyright: ignore
    low, high = (float(end) for end in re.findall(r"\.\d+", zoom.caption)[:2])
    late = study.table("epochs", measure="accuracy")
    late = late[late["epoch"] > 10]["value"]
    assert low < late.min() < late.max() < high
    assert high - low < 1.2 * (late.max() - late.min()) + 0.01


def test_the_count_figure_orders_variants_by_their_number_of_experts(make_study):
    variants = {"many": 6, "one": 1, "three": 3, "predesigned": 2}
    report = {"expert_count": {"variants": ["many", "one", "three"], "marks": ["predesigned"]}}
    out = make_study(variants=variants, seeds=2, epochs=1, report=report)
    section = expert_count.section(tabulate(read_study(out)))
    assert section is not None
    table = section.blocks[1]
    assert isinstance(table, Table)
    assert [row[:2] for row in table.rows] == [["1", "one"], ["3", "three"], ["6", "many"], ["–", "predesigned"]]


def test_variants_are_compared_by_their_first_gate_whatever_its_name(make_study):
    gates = ["1.mixture.gate", "3.mixture.gate"]
    shape = {"seeds": 1, "epochs": 1, "report": {"expert_count": {"variants": ["two", "three"]}}}
    study = tabulate(read_study(make_study(variants={"two": 2, "three": 3}, gates=gates, **shape)))
    pages = {section.name: section for section in sections_of(study)}
    (points,) = pages["answer"].blocks
    assert len(re.findall(r"(?:two|three) \.\d+", points.points[-1][1])) == 2  # pyright: ignore
    assert [row[:2] for row in pages["expert-count"].blocks[1].rows] == [["2", "two"], ["3", "three"]]  # pyright: ignore
    heads = [block.text for block in pages["activation"].blocks if isinstance(block, Heading)]
    assert heads[:2] == ["two, gate 1.mixture.gate", "two, gate 3.mixture.gate"]
    alone = read_study(make_study(variants={"two": 2}, gates=gates[:1], folder=study.folder / "one", **shape))
    assert title_of(alone, "two", gates[0]) == "two"


def test_without_counts_in_the_recipe_there_is_no_figure_of_them(make_study):
    assert expert_count.section(tabulate(read_study(make_study(seeds=1, epochs=1)))) is None
