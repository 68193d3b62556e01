"""`mb.lab.run`: a mapping, a file and the command give the same bits."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import moebius as mb
from moebius.kit.errors import RecipeError, UnknownKindError
from moebius.kit.files import read_json
from moebius.lab.cli import app
from moebius.lab.yaml_text import write_yaml

# A tuple where YAML has a list, to be tried as Python writes it.
RECIPE = {
    "name": "tiny",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 120, "test_rows": 60},
    "training": {"epochs": 1, "batch_size": 40, "optimizer": {"kind": "adam", "betas": (0.8, 0.9)}},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"soft": None, "top": {"router": {"kind": "top_k", "k": 1}}},
}
ARGUMENTS = ("training.optimizer.lr=1e-2",)


def without_times(value):
    """Results without what differs from one run to the next."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if "second" not in key and key != "rate"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_mapping_gives_the_bits_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(write_yaml(RECIPE), encoding="utf-8")
    command = ["run", str(path), *ARGUMENTS, "--workers", "1", "--out", "command"]
    assert CliRunner().invoke(app, command).exit_code == 0
    folder = mb.lab.run(RECIPE, overrides=ARGUMENTS, workers=1)
    assert folder == Path("runs/tiny")
    mb.lab.run(path, "file", overrides=ARGUMENTS, workers=1)
    results = [read_json(Path(name) / "results.json") for name in (folder, "command", "file")]
    assert without_times(results[0]) == without_times(results[1]) == without_times(results[2])
    for variant in RECIPE["variants"]:
        weights, expected = (
            load_file(Path(name) / variant / "seed-0" / "model.safetensors") for name in (folder, "command")
        )
        assert weights.keys() == expected.keys()
        assert all(weights[name].equal(expected[name]) for name in expected)


def test_a_mapping_is_checked_like_a_file():
    wrong = {**RECIPE, "training": {"epoch": 1}, "titel": "A question"}
    with pytest.raises(RecipeError) as error:
        mb.lab.run(wrong, overrides=["training.batch_size=0"])
    assert set(str(error.value).splitlines()) == {
        "recipe: titel: no such key, got 'A question'; did you mean title or time?",
        "recipe: training.epoch: no such key, got 1; did you mean epochs?",
        "recipe: training.batch_size: needs a number of at least 1, got 0 (from training.batch_size=0)",
    }
    with pytest.raises(RecipeError, match=r"recipe: training.losses\[0\]: needs a plain value, got <function z_loss"):
        mb.lab.run({**RECIPE, "training": {"losses": [mb.losses.z_loss]}})
    with pytest.raises(UnknownKindError, match="no preset of recipe is called 'quick'"):
        mb.lab.run(RECIPE, preset="quick")


def test_an_option_that_there_is_not_is_refused_before_anything_is_read():
    with pytest.raises(mb.ArgumentError, match=r"worker: needs one of the options preset, overrides") as error:
        mb.lab.run("quickstart", worker=1)
    assert "did you mean workers?" in error.value.fix
