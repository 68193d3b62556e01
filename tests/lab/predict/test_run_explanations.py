"""`moebius predict` and `explain` for runs: pictures, tables and rows of the run's own data, as text and as JSON."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import moebius as mb
from moebius.lab.cli import app
from moebius.lab.predict import explain
from moebius.lab.study.run_rows import load_run_data

MODEL = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}}
PICTURES = {
    "name": "pictures",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 200, "test_rows": 50, "validation_rows": 30},
    "training": {"epochs": 2},
    "model": {**MODEL, "router": {"kind": "top_k", "k": 1}},
    "variants": {"first": {}, "second": {}},
}


def invoke(*arguments, columns="80"):
    result = CliRunner(env={"COLUMNS": columns}).invoke(app, ["predict", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return mb.lab.run(PICTURES, tmp_path_factory.mktemp("explained") / "study", workers=1)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    x = np.random.default_rng(0).random((300, 2))
    price = np.where(x[:, 0] < 0.5, 1000, 3000) + 100 * x[:, 1]
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "price": price}).to_csv(folder / "t.csv", index=False)
    recipe = {
        "name": "numbers",
        "data": {"sets": [{"kind": "csv", "path": str(folder / "t.csv"), "target": "price"}]},
        "task": "regression",
        "training": {"epochs": 5, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 1e-2}},
        "model": MODEL,
        "variants": {"soft": {}},
    }
    return mb.lab.run(recipe, folder / "study", workers=1)


@pytest.fixture
def by_folder(pictures, tmp_path):
    """The first test rows as pictures, each in a folder of its class's name."""
    data = load_run_data(pictures / "first" / "seed-0")
    for row, (pixels, label) in enumerate(zip(data.test.images[:6, 0].numpy(), data.test.labels[:6], strict=True)):
        folder = tmp_path / data.classes[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    return tmp_path


def recorded(run, split="test"):
    table = pd.read_parquet(run / "routing.parquet")
    return table[table["split"] == split].set_index("row").to_dict("index")


@pytest.mark.parametrize("variant", ["first", "second"])
def test_rows_of_the_run_have_the_figures_that_it_recorded(pictures, variant):
    run = pictures / variant / "seed-0"
    code, output = invoke(run, "--row", "test:7", "--row", "train:3", "--json")
    assert code == 0, output
    for line, (split, row) in zip(output.splitlines(), (("test", 7), ("train", 3)), strict=True):
        why, expected = json.loads(line), recorded(run, split)[row]
        assert (why["schema"], why["row"]) == (1, f"{split}:{row}")
        assert why["answer"]["class"]["prediction"] == str(int(expected["prediction"]))
        assert why["label"] == {"class": str(int(expected["label"]))}
        assert why["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert why["score"] == expected["score"]
        weights = {expert["expert"]: expert["weight"] for expert in why["gates"][0]["experts"]}
        assert weights == pytest.approx({e: expected[f"gate_{e}"] for e in range(3)}, abs=1e-5)
        losses = [expert["loss"] for expert in why["gates"][0]["experts"]]
        assert why["regret"] == pytest.approx(why["loss"] - min(losses), abs=1e-6)


def test_one_row_is_a_block_and_several_are_a_table(pictures):
    run = pictures / "first" / "seed-0"
    code, block = invoke(run, "--row", "validation:0")
    assert (code, block.splitlines()[0]) == (0, "validation:0")
    assert "gate: 1 of 3 experts ran" in block
    code, table = invoke(run, "--row", "test:0", "--row", "test:1")
    assert code == 0
    for heading in ("class", "probability", "experts", "runner-up", "label", "regret"):
        assert heading in table
    assert max(map(len, table.splitlines())) <= 80
    assert invoke(run, "--row", "test:0", "--row", "test:1", "--why")[1].count("1 of 3 experts ran") == 2
    assert "┃" in invoke(run, "--row", "test:0", "--table")[1]


def test_pictures_with_labels(pictures, by_folder):
    run = pictures / "first" / "seed-0"
    code, output = invoke(run, by_folder, "--labels", "--json")
    assert code == 0, output
    whys = [json.loads(line) for line in output.splitlines()]
    assert len(whys) == 6
    for why in whys:
        row = recorded(run)[int(why["row"].rpartition("/")[2].removesuffix(".png"))]
        assert why["label"]["class"] == why["row"].split("/")[-2] == str(int(row["label"]))
        assert why["loss"] == pytest.approx(row["loss"], abs=1e-4)
    picture = next(by_folder.glob("*/0.png"))
    assert "label    3: " in invoke(run, picture, "--label", "3")[1]
    assert explain(run, [picture], "3")[0].label == {"class": "3"}


def test_rows_of_a_table_are_in_its_units(numbers, tmp_path):
    run = numbers / "soft" / "seed-0"
    frame = pd.DataFrame({"a": [0.1, 0.9], "b": [0.5, 0.2], "price": [1050.0, 3020.0]})
    for why, price in zip(explain(run, frame), frame["price"], strict=True):
        assert why.label == {"price": pytest.approx(price, rel=1e-6)}
        assert abs(why.answer["price"]["prediction"] - price) < 500
        assert why.loss == pytest.approx(((why.answer["price"]["prediction"] - price) / deviation(run)) ** 2, rel=1e-3)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    code, table = invoke(run, tmp_path / "rows.csv")
    assert code == 0
    assert "regret" in table
    frame[["a", "b"]].head(1).to_csv(tmp_path / "row.csv", index=False)
    assert "not known, so there is no regret" in invoke(run, tmp_path / "row.csv")[1]
    assert "off by" in invoke(run, "--row", "test:0")[1]


def deviation(run):
    from moebius.lab.predict import load_run

    return load_run(run)[1]["columns"]["targets"][0]["scale"]


def test_what_is_refused(pictures, by_folder, tmp_path):
    run = pictures / "first" / "seed-0"
    for arguments, message in (
        ([], "needs files, or rows of the run's own data"),
        ([by_folder, "--row", "test:0"], "and not both"),
        (["--row", "7"], "needs SPLIT:NUMBER"),
        (["--row", "tests:0"], "--row test:0"),
        (["--row", "test:50"], "needs a number 0 … 49 of test"),
        ([by_folder, "--label", "cat"], "must be names or positions of label"),
        ([tmp_path / "nothing"], "there is no such image file"),
    ):
        code, output = invoke(run, *arguments, columns="200")
        assert (code, message in output) == (2, True), output
        assert "fix:" in output


def test_rows_need_the_data_of_the_study(pictures, tmp_path):
    shutil.copytree(pictures / "first" / "seed-0", tmp_path / "first" / "seed-0")
    (tmp_path / "first" / "seed-0" / "job.json").unlink(missing_ok=True)
    code, output = invoke(tmp_path / "first" / "seed-0", "--row", "test:0", columns="200")
    assert (code, "no job.json beside it" in output) == (2, True)
