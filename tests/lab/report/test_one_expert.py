"""The section about exactly one expert, on figures that can be checked by hand."""

import json
from itertools import pairwise

import pytest

from moebius.lab.report.blocks import Panels, Table
from moebius.lab.report.charts.active_experts import HEIGHT, LINE, _spread_names
from moebius.lab.report.sections import one_expert
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate

ENDS = {"one_expert": {"floor": "single", "bound": "soft"}}
TRAINED = {"single": 0.60, "soft": 0.80, "cut": 0.78}
ONE = {"soft": 0.70, "cut": 0.76}
# By so much a variant's score rises with each seed beside what all seeds share.
RISE = {"single": 0.0, "soft": 0.002, "cut": 0.004}


def make_out(make_study, seeds=3, costs=True, rise=RISE):
    out = make_study(variants={"single": 1, "soft": 4, "cut": 4}, seeds=seeds, epochs=1, report=ENDS)
    results = json.loads((out / "results.json").read_text())
    for run in results["runs"]:
        name = run["variant"]
        shift = 0.01 * run["seed"] + rise[name] * (run["seed"] - 1)
        run["accuracy"]["test"] = TRAINED[name] + shift
        run["gates"]["gate"]["active_experts"]["test"] = 4.0 if name == "soft" else 1.0
        run["one_expert"] = {"accuracy": ONE[name] + shift} if name in ONE else None
    if costs:
        both = {"as_trained": {"multiply_adds": 4000.0, "microseconds": 8.0}}
        results["costs"] = {
            "single": both,
            "soft": {**both, "one_expert": {"multiply_adds": 1000, "microseconds": 3.25}},
        }
    (out / "results.json").write_text(json.dumps(results))
    return out


def tables(out):
    section = one_expert.section(tabulate(read_study(out)))
    assert section is not None
    return section, [block for block in section.blocks if isinstance(block, Table)]


def test_differences_are_paired_by_seed_and_the_gap_is_a_share(make_study):
    _, (table, _) = tables(make_out(make_study))
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    # Seed by seed −.100, as trained and cut alike; the differences of cut are −.042, −.040, −.038.
    assert cells["soft"]["minus soft, paired"] == "−.100"
    assert cells["cut"]["minus soft, paired"] == "−.040 [−.045, −.035]"
    assert cells["cut"]["verdict"] == "worse"
    assert cells["soft"]["of the gap closed"] == "50 % [49, 51]"
    assert cells["cut"]["of the gap closed"] == "80 % [77, 83]"
    assert cells["single"]["of the gap closed"] == "0 %"
    assert cells["cut"]["exactly one expert"].startswith(".770 [")
    assert cells["soft"]["active experts"] == "4.00"
    assert cells["single"]["seeds with an unused expert"] == "–"
    assert list(table.marked) == []


def test_a_gap_that_is_not_shown_to_exist_has_no_shares(make_study):
    _, (table, _) = tables(make_out(make_study, rise={"single": 0.3, "soft": 0.0, "cut": 0.1}))
    assert [row[table.columns.index("of the gap closed")] for row in table.rows] == ["–"] * 3


def test_a_number_of_seeds_has_its_interval(make_study):
    _, (table, _) = tables(make_out(make_study, seeds=5))
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert cells["soft"]["seeds with an unused expert"] == "0 of 5 (0 … 52 %)"


def test_one_seed_has_differences_without_tests(make_study):
    _, (table, _) = tables(make_out(make_study, seeds=1))
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert cells["cut"]["minus soft, paired"] == "−.042"
    assert not {"p (Holm)", "verdict", "of the gap closed"} & set(table.columns)
    assert cells["soft"]["seeds with an unused expert"] == "no"


def test_costs_stand_where_they_were_measured(make_study):
    _, (_, costs) = tables(make_out(make_study))
    assert [list(row) for row in costs.rows] == [
        ["single", "4,000", "4,000", "8.0", "8.0"],
        ["soft", "4,000", "1,000", "8.0", "3.2"],
    ]


def test_without_ends_in_the_recipe_there_is_no_section(make_study):
    out = make_out(make_study, costs=False)
    assert len(tables(out)[1]) == 1
    about = json.loads((out / "study.json").read_text())
    about["recipe"]["report"] = {}
    (out / "study.json").write_text(json.dumps(about))
    assert one_expert.section(tabulate(read_study(out))) is None


def test_one_expert_that_was_not_measured_is_no_figure(make_study):
    out = make_out(make_study)
    results = json.loads((out / "results.json").read_text())
    for run in results["runs"]:
        run["one_expert"] = run["one_expert"] if run["variant"] != "cut" else None
    (out / "results.json").write_text(json.dumps(results))
    section, (table, _) = tables(out)
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert cells["cut"]["exactly one expert"] == cells["cut"]["of the gap closed"] == "–"
    assert cells["cut"]["as trained"].startswith(".790")
    (figure,) = next(block for block in section.blocks if isinstance(block, Panels)).figures
    assert figure.alt.endswith("cut: .790 with 1.0.")


def test_the_figure_says_its_numbers(make_study):
    section, _ = tables(make_out(make_study))
    (figure,) = next(block for block in section.blocks if isinstance(block, Panels)).figures
    assert "cut: .790 with 1.0, .770 with one" in figure.alt


@pytest.mark.parametrize("accuracies", [[0.7, 0.7, 0.7, 0.1], [0.9, 0.5, 0.1001, 0.1], [0.1] * 12])
def test_names_never_overlap_and_stay_in_the_picture(accuracies):
    domain = [0.08, 0.92]
    places = list(_spread_names([str(n) for n in range(len(accuracies))], accuracies, domain)["at"])
    step = LINE / HEIGHT * (domain[1] - domain[0])
    assert all(upper - lower >= step - 1e-9 for upper, lower in pairwise(places))
    assert min(places) >= domain[0]
    assert max(places) <= domain[1]
