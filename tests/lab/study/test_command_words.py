import json

from typer.testing import CliRunner

from moebius.lab.cli import app
from moebius.lab.recipe.load import load_recipe
from moebius.lab.report.command import run_command
from moebius.lab.study.command_words import command_words


def test_the_command_is_the_one_that_was_typed():
    options = {"preset": "quick", "overrides": ["training.epochs=1", "sweep.keys.training.optimizer.lr=[0.1, 0.2]"]}
    options |= {"seeds": 2, "data_dir": "/data", "device": "auto", "cohorts": "never", "workers": 2}
    words = command_words("my recipe.yaml", {**options, "plugins": ["mine.py"]})
    assert run_command({"command": words}) == (
        "moebius run 'my recipe.yaml' training.epochs=1 --sweep 'training.optimizer.lr=[0.1, 0.2]' --preset quick "
        "--seeds 2 --data-dir DATA_DIR --cohorts never --plugin mine.py"
    )


def test_the_words_are_a_command_of_the_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = command_words(load_recipe("quickstart", ["training.epochs=1"], "quick", 2), {"data_dir": "/nowhere"})
    result = CliRunner().invoke(app, [*words[1:], "--plan-only"])
    assert result.exit_code == 0
    about = json.loads((tmp_path / "runs" / "quickstart-quick" / "study.json").read_text())
    assert about["command"] == words
    assert "/nowhere" not in json.dumps(about)


def test_plain_values_have_no_command():
    assert command_words({"name": "x"}, {}) == []
    assert run_command({"command": [], "reference": "x.yaml"}) == ""
    assert run_command({"reference": "mb.fit"}) == ""
