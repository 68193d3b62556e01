"""`moebius compare`: its page and its table say what scipy says, and what cannot be compared is one error."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

import moebius as mb
from moebius.kit.files import read_json, write_json
from moebius.lab.cli import app
from moebius.lab.comparison.wording import verdict_text


def invoke(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_the_page_and_the_table_say_what_scipy_says(study, results, tmp_path):
    result = invoke(study, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert f"page: {tmp_path / 'page.html'}" in result.output.replace("\n", "")
    scores = {name: [results[name, seed]["accuracy"]["test"] for seed in range(3)] for name in ("good", "poor", "twin")}
    test = stats.ttest_rel(scores["good"], scores["poor"])
    good, twin = mb.lab.compare(study).pairs
    assert good.over_seeds.mean == pytest.approx(np.mean(scores["good"]) - np.mean(scores["poor"]))
    assert (good.over_seeds.low, good.over_seeds.high) == pytest.approx(tuple(test.confidence_interval()))
    # The twin has the same scores, so that both p values count twice.
    assert scores["twin"] == scores["good"]
    assert good.seeds_p_holm == pytest.approx(test.pvalue * 2)
    page = (tmp_path / "page.html").read_text()
    assert "good and twin are better than poor" in page
    for pair in (good, twin):
        text = verdict_text(pair).replace("<", "&lt;")
        assert f"beside poor: {text}." in page.replace("\u00a0", " ")
    assert "src=" not in page
    assert "<script" not in page
    assert re.search(r'<svg[^>]*role="img"[^>]*aria-label="Test accuracy minus poor', page)


def test_what_is_not_told_apart_is_said(study, tmp_path):
    result = invoke(study / "good", study / "twin", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "twin is not told apart from good" in (tmp_path / "page.html").read_text()


def test_a_folder_gets_the_page_and_json_stays_json(study, tmp_path):
    result = invoke(study / "good" / "seed-0", study / "poor" / "seed-0", "--out", tmp_path, "--json")
    assert json.loads(result.stdout)["pairs"][0]["verdict"] == "worse as trained"
    assert "single trainings" in (tmp_path / "comparison.html").read_text()


@pytest.fixture(scope="module")
def places(study, other_data, tmp_path_factory):
    """Folders by name; `others` is a variant with other seeds."""
    folder = tmp_path_factory.mktemp("places") / "few"
    shutil.copytree(study / "twin" / "seed-0", folder / "twin" / "seed-7")
    shutil.copy(study / "study.json", folder)
    path = folder / "twin" / "seed-7" / "result.json"
    write_json(path, {**read_json(path), "seed": 7})
    named = {"good": study / "good", "digits": other_data[1] / "good", "others": folder / "twin"}
    return {**named, "nothing": study / "nothing"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("good", "digits"), "was tested on other rows"),
        (("good",), "needs at least two models"),
        (("good", "nothing"), "holds no finished run"),
        (("good", "others"), "none in common"),
    ],
)
def test_bad_pairs_are_one_error(places, tmp_path, names, message):
    result = invoke(*(places[name] for name in names), "--out", tmp_path / "page.html")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "page.html").exists()
