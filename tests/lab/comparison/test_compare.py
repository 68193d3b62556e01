"""Comparisons of real runs: figures are those of results.json, and verdicts claim what the tests show."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import moebius as mb
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import read_json, write_json
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate
from moebius.lab.statistics.difference import paired


def rows_of(folder):
    table = pd.read_parquet(folder / "routing.parquet")
    return table[table["split"] == "test"].astype({"score": float})


def test_a_study_is_all_of_its_variants_beside_the_first(study, results):
    comparison = mb.lab.compare(study)
    assert [model.name for model in comparison.models] == ["poor", "good", "twin"]
    assert [(pair.name, pair.reference) for pair in comparison.pairs] == [("good", "poor"), ("twin", "poor")]
    score = {name: {s: results[name, s]["accuracy"]["test"] for s in range(3)} for name in ("poor", "good", "twin")}
    good, twin = comparison.pairs
    assert good.over_seeds == paired(score["good"], score["poor"])
    assert good.verdict == twin.verdict == "better"
    assert good.seeds_p_holm >= good.over_seeds.p


def test_over_rows_the_score_of_a_row_is_its_mean_over_seeds(study):
    (pair,) = mb.lab.compare(study / "poor", study / "good").pairs
    scores = [np.mean([rows_of(study / name / f"seed-{s}")["score"] for s in range(3)], 0) for name in ("good", "poor")]
    assert pair.over_rows == paired(scores[0].tolist(), scores[1].tolist())
    assert pair.rows_test == "student_t"
    agree = [rows_of(study / "good" / f"seed-{s}")["prediction"] for s in range(3)]
    other = [rows_of(study / "poor" / f"seed-{s}")["prediction"] for s in range(3)]
    assert pair.agreement == pytest.approx(np.mean([np.mean(a == b) for a, b in zip(agree, other, strict=True)]))


def test_classes_and_domains_have_differences_of_their_own_rows(study):
    (pair,) = mb.lab.compare(study / "poor", study / "good").pairs
    frames = [pd.concat([rows_of(study / name / f"seed-{s}") for s in range(3)]) for name in ("good", "poor")]
    by_domain = [frame.groupby("domain")["score"].mean() for frame in frames]
    domains = {group.name: group for group in pair.groups if group.kind == "domain"}
    for number, name in enumerate(("digits", "textures")):
        assert domains[name].difference.mean == pytest.approx(by_domain[0][number] - by_domain[1][number])
        assert domains[name].p_holm >= domains[name].difference.p
    sizes = [abs(group.difference.mean) for group in pair.groups]
    assert sizes == sorted(sizes, reverse=True)
    assert len([group for group in pair.groups if group.kind == "class"]) == 20


def test_equal_models_are_not_told_apart(study):
    (pair,) = mb.lab.compare(study / "good", study / "twin").pairs
    assert pair.over_rows.mean == 0
    assert pair.agreement == 1
    assert pair.verdict == "not shown to differ"
    assert "not shown to differ over 3 seeds: 0" in mb.lab.compare(study / "good", study / "twin")._repr_html_()


def test_single_runs_are_compared_over_rows(study):
    comparison = mb.lab.compare(study / "poor" / "seed-0", study / "good" / "seed-2")
    (pair,) = comparison.pairs
    assert (pair.seeds, pair.over_seeds, pair.rows_test) == ((), None, "mcnemar")
    assert pair.verdict == "better as trained"
    assert "over seeds" not in comparison.text()
    assert "nothing tells how the difference varies" in " ".join(comparison.text().split())


def test_all_pairs_are_corrected_together(study):
    comparison = mb.lab.compare(study, all_pairs=True)
    pairs = [(pair.name, pair.reference) for pair in comparison.pairs]
    assert pairs == [("good", "poor"), ("twin", "poor"), ("twin", "good")]
    assert {pair.comparisons for pair in comparison.pairs} == {3}


def test_what_it_gives(study):
    comparison = mb.lab.compare(study)
    frame = comparison.frame()
    assert frame["model"].tolist() == ["good", "twin"]
    assert frame["verdict"].tolist() == ["better", "better"]
    assert comparison.model_frame()["parameters"].tolist() == [2730] * 3
    assert set(comparison.group_frame()["by"]) == {"class", "domain"}
    document = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert document["schema"] == 1
    assert document["models"][0]["multiply_adds"] == 2728
    assert document["pairs"][0]["words"].startswith("better over 3 seeds: +")
    for text in (comparison.text(), comparison.text(60), repr(comparison)):
        assert "minus poor, over seeds" in text
    assert max(map(len, comparison.text().splitlines())) <= 80


def test_the_same_test_rows_of_another_study_are_compared_with_a_note(study, other_data):
    fewer, digits = other_data
    comparison = mb.lab.compare(study / "good", fewer / "good")
    assert [model.name for model in comparison.models] == ["study/good", "fewer/good"]
    assert comparison.notes == ("fewer/good: the same test rows as study/good, and other data to train on",)
    with pytest.raises(StudyError, match="digits/good: was tested on other rows than study/good"):
        mb.lab.compare(study / "good", digits / "good")


def test_folders_that_cannot_be_compared(study, tmp_path):
    with pytest.raises(ArgumentError, match="needs at least two models"):
        mb.lab.compare(study / "good")
    with pytest.raises(ArgumentError, match="needs at least two models"):
        mb.lab.compare(study / "good", study / "good")
    with pytest.raises(StudyError, match="holds no finished run of a variant"):
        mb.lab.compare(study / "good", tmp_path)
    with pytest.raises(StudyError, match="none in common"):
        mb.lab.compare(study / "good" / "seed-0", hide_seed(study, tmp_path))


def hide_seed(study, folder):
    """A copy of a variant without seed 0."""
    shutil.copytree(study / "twin", folder / "study" / "twin")
    shutil.copy(study / "study.json", folder / "study")
    shutil.rmtree(folder / "study" / "twin" / "seed-0")
    return folder / "study" / "twin"


def test_comparisons_are_those_of_the_report_and_of_results_json(study):
    comparison, study_read = mb.lab.compare(study), tabulate(read_study(study))
    written = json.loads((study / "results.json").read_text())["comparisons"]
    assert written == json.loads(json.dumps(study_read.family.to_dict()))
    for pair, contrast in zip(comparison.pairs, study_read.family.contrasts, strict=True):
        assert (pair.name, pair.over_seeds, pair.seeds_p_holm) == (contrast.name, contrast.difference, contrast.p_holm)
        assert pair.verdict == contrast.verdict


def test_the_baseline_and_the_margin_are_declared_or_asked_for(study, tmp_path):
    comparison = mb.lab.compare(study, baseline="good", margin=0.9)
    assert [(pair.name, pair.reference) for pair in comparison.pairs] == [("poor", "good"), ("twin", "good")]
    assert comparison.pairs[0].verdict == "worse"
    assert comparison.pairs[0].contrast.is_level
    assert '"Level" is shown to differ by less than .900' in " ".join(comparison.text().split())
    with pytest.raises(ArgumentError, match="no model is called so"):
        mb.lab.compare(study, baseline="goood")
    with pytest.raises(ArgumentError, match="needs a number above 0"):
        mb.lab.compare(study, margin=0.0)
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    about = read_json(copy / "study.json")
    about["recipe"] |= {"baseline": "twin", "margin": 0.9}
    write_json(copy / "study.json", about)
    declared = mb.lab.compare(copy)
    assert [pair.reference for pair in declared.pairs] == ["twin", "twin"]
    assert {pair.margin for pair in declared.pairs} == {0.9}
    assert tabulate(read_study(copy)).family.baseline == "twin"
