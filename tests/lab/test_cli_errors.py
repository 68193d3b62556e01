"""What goes wrong is said in a line, exits with 2, shows no traceback and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moebius.lab.cli import app

RECIPE = """
name: small
data: {sets: [{kind: digits}], size: 8}
training: {epochs: 1}
model: {gate: {kind: linear}, experts: {kind: linear, count: 2}}
variants: {linear: {}, hidden: {gate: {kind: mlp, hidden: [4]}}}
"""


def refused(*arguments: str) -> str:
    """What the command complains of; it has exited with 2, without a traceback."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder to run in, with one recipe; nothing else may be there afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path.parent / "hub-of-this-test"))
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


def nothing_left(here: Path, *but: str) -> bool:
    return sorted(path.name for path in here.iterdir()) == sorted(("small.yaml", *but))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("training:", "trainign:"),
            "small.yaml: trainign: no such key, got {'epochs': 1}; did you mean training or pretraining?",
        ),
        (
            ("kind: mlp", "kind: mpl"),
            "small.yaml: variants.hidden.gate.kind: no such kind, got 'mpl'; did you mean mlp?",
        ),
        (("epochs: 1", "epochs: -1"), "small.yaml: training.epochs: needs a number of at least 1, got -1"),
        (("hidden: [4]", "hidden: []"), "small.yaml: variants.hidden.gate.hidden: needs at least one width, got []"),
        (
            ("size: 8", "size: 8, size: 9"),
            'small.yaml: line 3: no valid YAML: found duplicate key "size"',
        ),
        (("name: small", "name: [small"), "small.yaml: line 3: no valid YAML"),
    ],
)
def test_a_wrong_recipe(here, change, message):
    (here / "small.yaml").write_text(RECIPE.replace(*change))
    for name in ("run", "show"):
        assert message in refused(name, "small.yaml")
    assert nothing_left(here)


def test_several_errors_come_together(here):
    (here / "small.yaml").write_text(RECIPE.replace("epochs: 1", "epochs: -1").replace("kind: mlp", "kind: mpl"))
    complaint = refused("run", "small.yaml", "data.size=x")
    assert complaint.count("small.yaml: ") == 3
    assert nothing_left(here)


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (["run", "quickstrat"], "error: no recipe is called 'quickstrat'", "fix: did you mean quickstart?"),
        (["show", "quickstrat"], "error: no recipe is called 'quickstrat'", "fix: did you mean quickstart?"),
        (["run", "none.yaml"], "error: recipe none.yaml: no such file", "fix: the path of a YAML file"),
        (["run", "quickstart", "--preset", "quik"], "is called 'quik'", "fix: did you mean quick?"),
        (["run", "small.yaml", "--preset", "quick"], "no preset of small.yaml is called 'quick'", "leave --preset out"),
        (["run", "quickstart", "training.epoch=2"], "training.epoch: no such key, got 2", "did you mean epochs?"),
        (["run", "quickstart", "epochs"], "override: needs the form key=value, got 'epochs'", "training.epochs=2"),
        (["run", "quickstart", "seeds=[1"], "seeds: needs a value in YAML", "line 1"),
        (["run", "linear-experts"], "--data-dir", "fix: "),
        (["run", "linear-experts", "--data-dir", "nowhere"], "nowhere", "fix: "),
        (["report", "nowhere"], "nowhere", "fix: "),
        (["predict", "nowhere", "x.png"], "nowhere: holds no finished run", "fix: "),
    ],
)
def test_what_cannot_be_done_is_said_with_a_fix(here, arguments, message, fix):
    complaint = refused(*arguments)
    assert message in complaint
    assert fix in complaint
    assert nothing_left(here)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["rum", "quickstart"], "No such command"),
        (["run", "quickstart", "--seeds", "0"], "greater than or equal to 1"),
        (["run", "quickstart", "--device", "tpu"], "'tpu' is not one of"),
        (["run", "quickstart", "--sedes", "2"], "No such option"),
    ],
)
def test_wrong_usage_is_refused(here, arguments, message):
    assert message in refused(*arguments)
    assert nothing_left(here)


def test_a_folder_that_cannot_be_written(here):
    (here / "taken").write_text("a file")
    complaint = refused("run", "small.yaml", "--out", "taken/study")
    assert "error: taken/study: cannot be written" in complaint
    assert "fix: --out" in complaint
    assert (here / "taken").read_text() == "a file"
    assert nothing_left(here, "taken")


def test_a_folder_of_another_study_stays_as_it_is(here):
    assert CliRunner().invoke(app, ["run", "small.yaml", "--out", "out", "--workers", "1"]).exit_code == 0
    before = {
        path: path.read_bytes()
        for path in (here / "out").rglob("*")
        if path.is_file() and path.name not in (".lock", ".pid")
    }
    complaint = refused("run", "small.yaml", "training.epochs=2", "--out", "out")
    assert "out: holds another study" in complaint
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_command_itself_prints_no_traceback(here):
    command = [sys.executable, "-m", "moebius", "run", "small.yaml", "model.gate.kind=linaer", "seeds=0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: small.yaml: seeds: needs a number of at least 1, got 0 (from seeds=0)\n"
        "small.yaml: model.gate.kind: no such kind, got 'linaer' (from model.gate.kind=linaer); did you mean linear?\n"
    )
    assert nothing_left(here)
