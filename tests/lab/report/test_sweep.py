"""The section of a sweep: the choice by held-out rows, figures for one and several keys, and points that diverged."""

import json

import pytest

from moebius.lab.report.blocks import Details, Panels, Points, Table
from moebius.lab.report.points import choose_points, list_points
from moebius.lab.report.sections import results, sweep
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate

RATES = (1e-4, 1e-3, 1e-2)


@pytest.fixture
def make_sweep(make_study):
    """Call it with the values of each point to get a study whose variant `linear` is swept, and its scores."""

    def make(points, scores, seeds=2, method="grid", keys=None, lost=()):
        names = [f"linear@{place}" for place in range(len(points))]
        out = make_study(variants={"single": 1, **dict.fromkeys(names, 2)}, seeds=seeds, epochs=1)
        about, document = (json.loads((out / name).read_text()) for name in ("study.json", "results.json"))
        about["points"] = {n: {"variant": "linear", "values": v} for n, v in zip(names, points, strict=True)}
        about["recipe"]["variants"] = {"single": {}, "linear": {}}
        about["recipe"]["sweep"] = {"method": method, "keys": keys or {key: [] for key in points[0]}}
        for run in document["runs"]:
            if run["variant"] in names:
                run["accuracy"]["validation"] = scores[names.index(run["variant"])] + 0.01 * run["seed"]
        document["runs"] = [run for run in document["runs"] if (run["variant"], run["seed"]) not in lost]
        (out / "study.json").write_text(json.dumps(about))
        (out / "results.json").write_text(json.dumps(document))
        return out

    return make


def blocks_of(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def names_of(section):
    return [figure.name for panels in blocks_of(section, Panels) for figure in panels.figures]


def test_the_page_shows_the_chosen_point_under_its_variants_name(make_sweep, holds_together):
    out = make_sweep([{"training.gate.lr": rate} for rate in RATES], [0.5, 0.7, 0.6])
    study = tabulate(read_study(out))
    assert study.variants == ("single", "linear")
    assert study.chosen["linear"].name == "linear@1"
    assert {run["point"] for run in study.runs if run["variant"] == "linear"} == {"linear@1"}
    section = sweep.section(study)
    (table,) = blocks_of(section, Table)
    assert [row[0] for row in table.rows] == ["0.001", "0.01", "0.0001"]
    assert list(table.marked) == [0]
    assert [bool(row[-1]) for row in table.rows] == [True, False, False]
    assert table.rows[1][1] == ".605 [.541, .669]"
    assert table.rows[1][2].startswith("−.100 [")
    shown = results.section(study).blocks[0]
    assert {row[0].removesuffix(" (baseline)") for row in shown.rows} == {"single", "linear"}
    text = holds_together(out)
    assert "linear@0" not in text.partition('id="about"')[0]
    lines = (out / "tables" / "sweep.csv").read_text().splitlines()
    assert lines[0] == "variant,point,seed,training.gate.lr,validation_accuracy,chosen"
    assert sum(line.endswith("True") for line in lines) == 2


def test_a_choice_at_the_end_of_the_values_is_named(make_sweep):
    out = make_sweep([{"training.gate.lr": rate} for rate in RATES], [0.5, 0.6, 0.7])
    (findings,) = blocks_of(sweep.section(tabulate(read_study(out))), Points)
    leads = dict(findings.points)
    assert leads["At the edge:"].startswith("the chosen training.gate.lr is the largest that was tried")


def test_a_choice_between_the_ends_is_not(make_sweep):
    out = make_sweep([{"training.gate.lr": rate} for rate in RATES], [0.5, 0.7, 0.6])
    (findings,) = blocks_of(sweep.section(tabulate(read_study(out))), Points)
    assert "At the edge:" not in dict(findings.points)


def test_seeds_that_move_points_alike_tell_them_apart(make_sweep):
    out = make_sweep([{"training.gate.lr": rate} for rate in RATES], [0.5, 0.7, 0.6], seeds=3)
    (findings,) = blocks_of(sweep.section(tabulate(read_study(out))), Points)
    assert dict(findings.points)["Not told apart from it:"].startswith("0 of the other 2 (")


@pytest.mark.parametrize(
    ("points", "method", "figures"),
    [
        ([{"a.lr": rate} for rate in RATES], "grid", 1),
        ([{"a.lr": rate, "b.lr": other} for rate in RATES for other in RATES], "grid", 3),
        ([{"a.lr": 10**-place, "b.lr": place + 1} for place in range(5)], "random", 3),
        ([{"a.f": widths, "b.k": kind} for widths in ([8], [8, 8]) for kind in ("x", "y")], "grid", 3),
        ([{"a.on": flag, "b.n": number} for flag in (True, False) for number in (None, 2)], "grid", 3),
        ([{"a": place, "b": place**2, "c": -place} for place in range(1, 6)], "optuna", 3),
        ([{"a": {"kind": "linear"}}, {"a": {"kind": "mlp", "hidden": [4]}}], "grid", 1),
        ([{"a": 3}], "grid", 1),
    ],
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_every_shape_of_a_sweep_is_drawn(make_sweep, holds_together, points, method, figures, seeds):
    out = make_sweep(points, [0.5 + 0.01 * place for place in range(len(points))], seeds=seeds, method=method)
    section = sweep.section(tabulate(read_study(out)))
    assert len(names_of(section)) == figures
    assert ("sweep-linear-map" in names_of(section)) == (len(points[0]) == 2)
    holds_together(out)


def test_a_point_that_lost_a_seed_is_neither_chosen_nor_drawn(make_sweep):
    out = make_sweep([{"a.lr": rate} for rate in RATES], [0.5, 0.6, 0.9], seeds=2, lost=[("linear@2", 1)])
    study = tabulate(read_study(out))
    assert study.chosen["linear"].name == "linear@1"
    (table,) = blocks_of(sweep.section(study), Table)
    assert table.rows[-1][:2] == ["0.01", "diverged in 1 of 2 seeds"]


def test_of_many_points_the_best_come_first_and_the_others_are_folded(make_sweep):
    points = [{"a": place} for place in range(1, 31)]
    out = make_sweep(points, [0.3 + 0.01 * place for place in range(30)], seeds=1)
    section = sweep.section(tabulate(read_study(out)))
    (table,), (others,) = blocks_of(section, Table), blocks_of(section, Details)
    assert len(table.rows) == sweep.LISTED
    assert others.summary == "10 other points"
    assert len(others.blocks[0].rows) == 10


def test_the_first_of_equal_points_is_chosen():
    about = {"points": {name: {"variant": "v", "values": {"a": name}} for name in ("one", "two")}}
    runs = [{"variant": name, "seed": 0, "accuracy": {"validation": 0.5, "test": 0.1}} for name in ("one", "two")]
    assert choose_points(list_points(about, runs))["v"].name == "one"


def test_a_study_without_a_sweep_has_no_such_section(make_study):
    assert sweep.section(tabulate(read_study(make_study(seeds=1, epochs=1)))) is None
