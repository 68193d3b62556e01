import importlib
import json
import pkgutil
import re

import pandas as pd
import pytest

from moebius.lab import diagnostics
from moebius.lab.diagnostics import collapse
from moebius.lab.report import sections
from moebius.lab.report.blocks import Details, Heading, Table
from moebius.lab.report.charts.parts import variant_colour
from moebius.lab.report.expert_names import title_of
from moebius.lab.report.figures import REST
from moebius.lab.report.queries import ranking
from moebius.lab.report.sections import answer, curves, expert_count, results, sections_of
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate
from moebius.lab.statistics.mcnemar import mcnemar
from moebius.lab.statistics.paired_rows import paired_rows

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


def text_of(module, out) -> str:
    """The points of a section, those behind a line to open among them."""
    section = module.section(tabulate(read_study(out)))
    assert section is not None
    blocks = [inner for block in section.blocks for inner in (block.blocks if block.kind == "details" else [block])]
    return "\n".join(f"{lead} {rest}" for block in blocks if block.kind == "points" for lead, rest in block.points)


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


def set_scores(out, scores, split="test"):
    """Give the runs these scores: variant → by seed."""
    edit_runs(out, lambda run: run["accuracy"].update({split: scores[run["variant"]][run["seed"]]}))


def edit_recipe(out, **keys):
    about = json.loads((out / "study.json").read_text())
    about["recipe"] |= keys
    (out / "study.json").write_text(json.dumps(about))


# Seeds move all variants by far more than these differ.
SCORES = {"low": [0.50, 0.60, 0.70], "high": [0.60, 0.71, 0.80], "same": [0.501, 0.599, 0.700]}


def test_the_answer_compares_with_the_first_variant_seed_by_seed(make_study):
    out = make_study(variants={"low": 1, "high": 2, "same": 2}, seeds=3, epochs=1)
    set_scores(out, SCORES)
    text = text_of(results, out)
    # Differences .10, .11, .10: p = .00103, times 2; the variants' own intervals overlap widely.
    assert "Better than low: high +.103 [+.089, +.118], p .002 (p after Holm for 2 comparisons)." in text
    assert "Not shown to differ from low: same 0 [−.002, +.002], p 1.000." in text
    text = text_of(answer, out)
    assert "Take high: test accuracy .703 [.455, .952] (mean of 3 seeds, 95 % interval)." in text
    assert "It is the only one shown to be better than low; no rows were held out" in text


def test_the_baseline_and_the_margin_are_those_of_the_recipe(make_study):
    out = make_study(variants={"low": 1, "high": 2, "same": 2}, seeds=3, epochs=1)
    set_scores(out, SCORES)
    edit_recipe(out, baseline="same", margin=0.005)
    text = text_of(results, out)
    assert "Better than same: high +.103" in text
    assert "Level with same within .005: low 0 [−.002, +.002], p .013." in text
    blocks = results.section(tabulate(read_study(out))).blocks
    table = next(block for block in blocks if block.kind == "table" and "minus" in block.caption)
    assert table.columns[-2:] == ["p level within .005 (Holm)", "verdict"]
    assert [row[-1] for row in table.rows] == ["level", "better"]


def test_held_out_rows_choose_and_test_rows_do_not(make_study):
    out = make_study(variants={"low": 1, "high": 2, "same": 2}, seeds=3, epochs=1)
    set_scores(out, SCORES)
    set_scores(out, {"low": [0.5] * 3, "high": [0.4] * 3, "same": [0.6] * 3}, "validation")
    text = text_of(answer, out)
    assert "Take same: test accuracy .600 [" in text
    assert "Held-out rows chose it; the test rows had no part in that." in text
    table = results.section(tabulate(read_study(out))).blocks[0]
    assert [table.rows[line][0] for line in table.marked] == ["same"]
    assert [row[0] for row in table.rows] == ["high", "low (baseline)", "same"]
    assert table.rows[0][table.columns.index("held out")] == ".400"


def test_the_answer_of_one_seed_is_over_rows_and_says_so(make_study):
    out = make_study(variants={"low": 1, "high": 2}, seeds=1, epochs=1)
    text = text_of(answer, out)
    study = tabulate(read_study(out))
    (contrast,) = study.family.contrasts
    rows = study.row_scores
    assert contrast.difference == paired_rows(rows["high"], rows["low"])
    assert contrast.difference.p == mcnemar(
        int(((rows["high"] == 1) & (rows["low"] == 0)).sum()), int(((rows["high"] == 0) & (rows["low"] == 1)).sum())
    )
    assert "95 % interval over 500 test rows" in text
    assert "One seed: another training may change the order (--seeds 5)." in text
    note = results.section(study).blocks[1].text
    assert "over the 500 test rows" in note
    assert "trained again, only more seeds say" in note


def ignore_the_second_expert(out, variant, seeds):
    for seed in seeds:
        path = out / variant / f"seed-{seed}" / "routing.parquet"
        frame = pd.read_parquet(path)
        frame["gate_0"], frame["gate_1"] = frame["gate_0"] * 0 + 1, frame["gate_1"] * 0
        frame.to_parquet(path)


def test_the_answer_finds_ignored_experts(make_study):
    out = make_study(variants={"conv": 2}, seeds=3, epochs=1)
    ignore_the_second_expert(out, "conv", range(3))
    assert "Ignored experts: conv: expert 1 in 3 of 3 seeds (29 … 100 %)." in text_of(answer, out)


def test_what_is_the_same_of_several_variants_is_one_sentence(make_study):
    out = make_study(variants={"conv": 2, "dense": 2, "wide": 2}, seeds=1, epochs=1)
    for variant in ("conv", "wide"):
        ignore_the_second_expert(out, variant, [0])
    text = text_of(answer, out)
    assert "Ignored experts: conv and wide: expert 1." in text
    assert text.count("expert 1") == 1


def test_collapse_counts_seeds_with_the_interval_of_their_share(make_study):
    out = make_study(variants={"conv": 2, "dense": 2}, seeds=4, epochs=1)
    ignore_the_second_expert(out, "conv", range(3))
    section = collapse.section(tabulate(read_study(out)))
    _, panels, summary, lines = section.blocks
    assert summary.rows == [
        ["conv", "3 of 4 (19 … 99 %)", "3 of 4 (19 … 99 %)"],
        ["dense", "0 of 4 (0 … 60 %)", "0 of 4 (0 … 60 %)"],
    ]
    (figure,) = panels.figures
    assert "conv 3 of 4 (19 … 99 %); dense 0 of 4 (0 … 60 %)" in figure.alt
    (drawn,) = figure.chart.to_dict()["datasets"].values()
    assert [(line["label"], line["share"]) for line in drawn] == [("conv", 0.75), ("dense", 0.0)]
    assert [round(drawn[0][end], 2) for end in ("low", "high")] == [0.19, 0.99]
    assert len(lines.rows) == 8
    # One seed has no share, and many runs are behind a line.
    (_, line) = collapse.section(tabulate(read_study(make_study(seeds=1, folder=out.parent / "one")))).blocks
    assert isinstance(line, Table)
    many = make_study(variants={"conv": 2}, seeds=41, epochs=1, rows={"train": 40, "test": 40}, folder=out.parent / "m")
    assert isinstance(collapse.section(tabulate(read_study(many))).blocks[-1], Details)


def test_the_results_table_crowns_nobody_by_test_rows(make_study):
    out = make_study(variants={"low": 1, "high": 2, "same": 2}, seeds=3, epochs=1)
    set_scores(out, SCORES)
    section = results.section(tabulate(read_study(out)))
    assert section is not None
    table, note, _, differences, explanation = section.blocks[:5]
    assert isinstance(table, Table)
    assert list(table.marked) == []
    assert "No rows are held out" in note.text
    assert [row[0] for row in table.rows] == ["high", "low (baseline)", "same"]
    assert table.rows[0][table.columns.index("test, every seed")] == ".600 .710 .800"
    assert differences.columns == ["variant", "minus low", "95 % interval", "p", "p (Holm)", "verdict"]
    assert list(differences.rows[0]) == ["high", "+.103", "[+.089, +.118]", ".001", ".002", "better"]
    assert "corrected for the 2 comparisons" in explanation.text


def test_seeds_that_all_differ_by_the_same_have_no_test(make_study):
    out = make_study(variants={"low": 1, "high": 2}, seeds=2, epochs=1)
    set_scores(out, {"low": [0.5, 0.6], "high": [0.75, 0.85]})
    assert "high +.250, every seed by the same, which no test can judge" in text_of(results, out)


def test_the_comparisons_are_a_table_too(make_study):
    out = make_study(variants={"low": 1, "high": 2, "same": 2}, seeds=3, epochs=1)
    set_scores(out, SCORES)
    frame = tabulate(read_study(out)).table("comparisons")
    assert frame["variant"].tolist() == ["high", "same"]
    assert frame["verdict"].tolist() == ["better", "not shown to differ"]
    assert frame["p_holm"].tolist() == pytest.approx([2 * frame["p"][0], 1.0])


def test_curves_follow_the_recipes_groups(make_study):
    groups = [{"title": "No loss", "variants": ["a", "b", "gone"]}, {"title": "Entropy", "variants": ["c"]}]
    out = make_study(variants={"a": 1, "b": 2, "c": 2}, seeds=1, epochs=3, report={"curves": groups})
    section = curves.section(tabulate(read_study(out)))
    assert section is not None
    names = [figure.name for block in section.blocks if block.kind == "panels" for figure in block.figures]
    ends = ("", "-zoom", "-loss")
    assert names == [f"curves-{group}{end}" for group in ("no-loss", "entropy") for end in ends]


def test_many_curves_have_a_chart_each(make_study):
    variants = {f"v{place}": 1 for place in range(13)}
    study = tabulate(read_study(make_study(variants=variants, seeds=1, epochs=2, rows={"train": 40, "test": 40})))
    section = curves.section(study)
    assert section is not None
    score, loss = (block.figures[0] for block in section.blocks)
    assert [figure.name for figure in (score, loss)] == ["curves", "curves-loss"]
    assert len(score.chart.to_dict(validate=False)["concat"]) == 13
    order = sorted(study.runs, key=lambda run: -run["accuracy"]["test"])
    titles = re.findall(r"'variant': '(v\d+)'", str(score.chart.concat[0].layer[-1].data.to_dict("records")))
    assert titles == [order[0]["variant"]]


def test_a_group_of_variants_that_are_grey_elsewhere_has_colours_of_its_own(make_study):
    variants = {f"v{place:02}": 2 for place in range(15)}
    study = tabulate(read_study(make_study(variants=variants, seeds=1, epochs=2, rows={"train": 60, "test": 60})))
    worst = [name for name, _ in ranking(study)][-3:]
    color = variant_colour(study, worst).to_dict()
    assert color["legend"]["values"] == color["scale"]["domain"] == worst
    assert len(set(color["scale"]["range"]) - {REST}) == 3
    best = [name for name, _ in ranking(study)][:2]
    mixed = variant_colour(study, [*best, *worst]).to_dict()["scale"]["range"]
    assert mixed[:2] == variant_colour(study, best).to_dict()["scale"]["range"]
    assert len(set(mixed)) == 5


def test_the_zoom_lies_where_the_curves_end(make_study):
    out = make_study(variants={"a": 1}, seeds=1, epochs=20)
    study = tabulate(read_study(out))
    section = curves.section(study)
    assert section is not None
    _, zoom, _ = section.blocks[0].figures  # pyright: ignore
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
    (points,) = pages["answer"].blocks[-1].blocks  # pyright: ignore
    assert len(re.findall(r"(?:two|three) \.\d+", points.points[-1][1])) == 2
    assert [row[:2] for row in pages["expert-count"].blocks[1].rows] == [["2", "two"], ["3", "three"]]  # pyright: ignore
    heads = [block.text for block in pages["activation"].blocks if isinstance(block, Heading)]
    assert heads[:2] == ["two, gate 1.mixture.gate", "two, gate 3.mixture.gate"]
    alone = read_study(make_study(variants={"two": 2}, gates=gates[:1], folder=study.folder / "one", **shape))
    assert title_of(alone, "two", gates[0]) == "two"


def test_without_counts_in_the_recipe_there_is_no_figure_of_them(make_study):
    assert expert_count.section(tabulate(read_study(make_study(seeds=1, epochs=1)))) is None
