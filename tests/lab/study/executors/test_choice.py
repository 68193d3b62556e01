"""Executors by name, and what the command says of them."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.lab.cli import app
from moebius.lab.study.executors import Local
from moebius.lab.study.executors._choice import as_executor

PLUGIN = '''
import moebius as mb
from moebius.lab.study.scheduler import Scheduler


@mb.register("study.executors")
class AtOnce(Scheduler):
    """Does a job when it is submitted."""

    text = "itself"

    def __init__(self, cpus=None):
        super().__init__(cpus)

    def submit(self, submission):
        return Done(submission())


class Done:
    def __init__(self, outcome):
        self.outcome = outcome

    def poll(self):
        return self.outcome

    def cancel(self):
        pass
'''


def moebius(*arguments):
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(argument) for argument in arguments])


def test_an_object_a_kind_or_a_mapping():
    local = Local()
    assert as_executor(local) is local
    assert isinstance(as_executor("local"), Local)
    assert isinstance(as_executor({"kind": "local"}), Local)
    with pytest.raises(UnknownKindError, match="no executors kind is called 'rya'") as caught:
        as_executor("rya")
    assert caught.value.fix == "did you mean ray?"
    with pytest.raises(ArgumentError, match="local has no option cpus, got 2") as caught:
        as_executor({"kind": "local", "cpus": 2})
    assert caught.value.fix == "options of local: none"
    with pytest.raises(ArgumentError, match="needs an executor, a kind, or a mapping"):
        as_executor({"cpus": 2})


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_a_missing_extra_is_named_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    result = moebius("run", "quickstart", "--executor", name, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: executor {name} needs the package of this name")
    assert result.stderr.endswith(f"  fix: pip install 'moebius[{name}]'\n")
    assert not (tmp_path / "out").exists()


def test_options_of_the_command_reach_the_executor_or_are_refused(tmp_path):
    def refused(*options):
        result = moebius("run", "quickstart", "--out", tmp_path / "out", *options)
        assert result.exit_code == 2
        return result.stderr

    assert "local has no option cpus, got 2" in refused("--cpus", 2)
    assert "ray has no option partition, got 'long'" in refused("--executor", "ray", "--partition", "long")
    assert "--slurm: needs KEY=VALUE, got 'lab'" in refused("--executor", "submitit", "--slurm", "lab")
    assert "cluster: needs auto, slurm or local" in refused("--executor", "submitit", "--cluster", "pbs")
    assert not (tmp_path / "out").exists()


def test_a_third_executor_is_one_file(small_recipe, tmp_path: Path, capsys, register):
    import moebius as mb

    (tmp_path / "at_once.py").write_text(PLUGIN)
    recipe = small_recipe("training.epochs=1", "variants={linear: {}}")
    options = {"plugins": [tmp_path / "at_once.py"], "executor": {"kind": "at_once", "cpus": 1}}
    out = mb.lab.run(recipe, tmp_path / "out", **options)
    assert "jobs by itself, 1 thread each" in " ".join(capsys.readouterr().out.split())
    study = json.loads((out / "study.json").read_text())
    assert study["hardware"]["jobs by"] == "itself"
    assert study["machine"]["threads"] == 1
    assert (out / "report.html").exists()
