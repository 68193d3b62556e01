"""`moebius compare`: its page and its table say what scipy says, and what cannot be compared is one error."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import moebius as mb
from moebius.lab.cli import app
from moebius.lab.comparison.wording import verdict_text

DATA = {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 200, "test_rows": 150}
RECIPE = {
    "name": "small",
    "data": DATA,
    "training": {"epochs": 6, "batch_size": 25, "optimizer": {"kind": "adam", "lr": 2e-2}},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"good": {}, "poor": {"training": {"optimizer": {"kind": "adam", "lr": 1e-6}}}, "twin": {}},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        small = mb.lab.run(RECIPE, folder / "small", workers=1, seeds=3)
        # The same study on other data: another fingerprint, and a test row less.
        others = Path(shutil.copytree(small, folder / "others"))
        about = json.loads((others / "study.json").read_text())
        about["data"]["fingerprint"] = "another"
        (others / "study.json").write_text(json.dumps(about))
        for path in others.glob("good/seed-*/routing.parquet"):
            pd.read_parquet(path).iloc[:-1].to_parquet(path)
        yield small


def invoke(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_the_page_and_the_table_say_what_scipy_says(small, tmp_path):
    result = invoke(small, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert f"page: {tmp_path / 'page.html'}" in result.output.replace("\n", "")
    runs = json.loads((small / "results.json").read_text())["runs"]
    scores = {(run["variant"], run["seed"]): run["accuracy"]["test"] for run in runs}
    tests, differences = {}, {}
    for name in ("poor", "twin"):
        differences[name] = np.array([scores[name, seed] - scores["good", seed] for seed in range(3)])
        if differences[name].any():
            tests[name] = stats.ttest_rel(*[[scores[each, seed] for seed in range(3)] for each in (name, "good")])
    page = (tmp_path / "page.html").read_text()
    comparison = mb.lab.compare(small)
    poor, twin = comparison.pairs
    assert poor.over_seeds.mean == pytest.approx(differences["poor"].mean())
    low, high = tests["poor"].confidence_interval()
    assert (poor.over_seeds.low, poor.over_seeds.high) == pytest.approx((low, high))
    # Of two hypotheses the smaller p counts twice.
    assert poor.seeds_p_holm == pytest.approx(min(1.0, tests["poor"].pvalue * 2))
    assert "Poor is worse than good" in page
    assert "twin is not told apart from good" in page
    for pair in (poor, twin):
        assert f"beside good: {verdict_text(pair)}.".replace(" %", "\u00a0%").replace("<", "&lt;") in page
    assert "src=" not in page
    assert "<script" not in page
    assert re.search(r'<svg[^>]*role="img"[^>]*aria-label="Test accuracy minus good', page)


def test_a_folder_gets_the_page_and_json_stays_json(small, tmp_path):
    result = invoke(small / "good" / "seed-0", small / "poor" / "seed-0", "--out", tmp_path, "--json")
    assert json.loads(result.stdout)["pairs"][0]["verdict"] == "worse as trained"
    assert "single trainings" in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("small/good", "others/good"), "was tested on other rows"),
        (("small/good",), "needs at least two models"),
        (("small/good", "small/nothing"), "holds no finished run"),
        (("small/good", "few/twin"), "none in common"),
    ],
)
def test_bad_pairs_are_one_error(small, tmp_path, places, message):
    folder = small.parent
    if not (folder / "few").exists():
        shutil.copytree(folder / "small", folder / "few")
        for seed in (0, 1):
            shutil.move(folder / "few" / "twin" / f"seed-{seed}", folder / "few" / "twin" / f"seed-{seed + 7}")
            path = folder / "few" / "twin" / f"seed-{seed + 7}" / "result.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "seed": seed + 7}))
        shutil.rmtree(folder / "few" / "twin" / "seed-2")
    result = invoke(*(folder / place for place in places), "--out", tmp_path / "page.html")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "page.html").exists()
