"""Commands in fixes: a shell takes them as they stand, they name the damaged thing, and they delete nothing."""

import json
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import moebius
from moebius.kit.commands import beside, command, move_aside
from moebius.kit.errors import MoebiusError, StudyError
from moebius.lab.comparison.models import _read_run
from moebius.lab.predict.images import load_run
from moebius.lab.recipe.plugins import check_plugins
from moebius.lab.report.example_files import read_examples
from moebius.lab.report.read_rows import read_rows
from moebius.lab.report.source import read_study as read_report
from moebius.lab.report.tested_rows import read_test_rows
from moebius.lab.study.diagnose_run import find_runs
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.run import plan
from moebius.lab.study.run_rows import load_run_data
from moebius.lab.study.study_file import read_study
from moebius.lab.study.submission import Submission
from moebius.lab.training.checkpoint import path_before

SIGNS = " '\"$`\\;&|<>*?#()!~é\n-"


def words(fix):
    return shlex.split(fix, comments=True)


@pytest.fixture(scope="module")
def finished(small_job, tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("finished"))
    assert Submission.of(job, None, None)().reason is None
    return job.folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run in a folder called `my runs`."""
    study = tmp_path / "my runs" / "it's $HOME"
    shutil.copytree(finished.parent.parent, study)
    return study / finished.parent.name / finished.name


def test_no_source_deletes_in_a_fix():
    folder = Path(moebius.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    assert len(texts) > 300
    deleting = re.compile(r"""["' ](rm|rmdir|shred|unlink|del) (-\S+ )?\{|rm -r|remove the (run|file|folder)""")
    unquoted = re.compile(r"""(moebius \w+ |--out |--stages |--plugin |--data-dir |\bmv )\{(?!beside|shlex|command)""")
    for path, text in texts.items():
        for line in text.splitlines():
            assert not deleting.search(line), f"{path}: {line}"
            assert not unquoted.search(line), f"{path}: {line}"


@pytest.mark.parametrize("seed", range(20))
def test_a_shell_moves_aside_what_the_command_names_and_nothing_else(seed, tmp_path):
    draw = random.Random(seed)
    name = "".join(draw.choice(SIGNS + "ab") for _ in range(draw.randint(1, 12))).strip("/")
    path = tmp_path / f"x{name}"
    path.mkdir()
    (path / "kept").write_text("kept")
    (tmp_path / "other").write_text("other")
    for number in range(3):
        path.mkdir(exist_ok=True)
        assert words(move_aside(path))[:2] == ["mv", str(path)]
        subprocess.run(["sh", "-c", move_aside(path)], check=True)
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == number + 2
    assert (Path(f"{path}.damaged") / "kept").read_text() == "kept"
    assert words(f"moebius run --out {beside(path)}")[-1] == f"{path}-2"
    assert words(command("moebius", "job", path)) == ["moebius", "job", str(path)]


def test_a_relative_name_that_begins_with_a_dash_is_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-rf").mkdir()
    subprocess.run(["sh", "-c", move_aside(Path("-rf"))], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["-rf.damaged"]


def break_file(path):
    path.write_bytes(b"\0 no file of its kind")


DAMAGES = {
    "checkpoint": "state/checkpoint.safetensors",
    "routing": "routing.parquet",
    "tested": "routing.parquet",
    "examples": "examples.safetensors",
    "result": "result.json",
    "study": "../../study.json",
    "report": "../../study.json",
    "job": "job.json",
}


def raise_damage(name, run):
    study = run.parent.parent
    if name == "checkpoint":
        (run / "result.json").unlink()
        break_file(path_before(run / DAMAGES[name]))
        outcome = Submission.of(JobSpec.read(run), None, None)()
        ((message, fix),) = outcome.errors.values()
        raise StudyError(message, fix)
    calls = {
        "routing": lambda: read_rows(run / "routing.parquet", ("a",), ("b",)),
        "tested": lambda: read_test_rows(run),
        "examples": lambda: read_examples(run),
        "result": lambda: _read_run(run),
        "study": lambda: read_study(study / "study.json"),
        "report": lambda: read_report(study),
        "job": lambda: JobSpec.read(run),
    }
    calls[name]()
    raise AssertionError(name)


@pytest.mark.parametrize("name", DAMAGES)
def test_the_fix_for_damage_names_the_damaged_thing(name, run):
    path = (run / DAMAGES[name]).resolve()
    path.parent.mkdir(exist_ok=True)
    break_file(path)
    with pytest.raises(MoebiusError) as caught:
        raise_damage(name, run)
    fix = caught.value.fix
    study = run.parent.parent
    first, *rest = words(fix)
    assert first in ("mv", "--out", "moebius")
    if first == "mv":
        # Where the result is gone, too, the run writes both anew, from its checkpoint.
        moved = [path, run / "result.json"] if name in ("routing", "tested", "examples") else [path]
        moved += [path_before(path)] if name == "checkpoint" else []
        commands = [["mv", str(each), f"{each}.damaged"] for each in moved]
        assert words(fix) == [*commands[0], *(word for each in commands[1:] for word in ("&&", *each))]
        subprocess.run(["sh", "-c", fix], check=True)
        assert not any(each.exists() for each in moved)
        assert study.exists()
    elif first == "--out":
        assert rest == [f"{study}-2"]
    else:
        assert rest == ["run", "RECIPE", "--out", str(study), "--plan-only"]


def test_commands_name_the_folder_with_its_spaces(run):
    study = run.parent.parent
    (run / "job.json").unlink()
    cases = [
        (lambda: JobSpec.read(run), ["moebius", "run", "RECIPE", "--out", str(study), "--plan-only"]),
        (lambda: load_run_data(run), ["moebius", "run", "RECIPE", "--out", str(study), "--plan-only"]),
        (
            lambda: check_plugins(study, [{"file": "my plugins/a b.py", "sha256": "0"}], ()),
            ["--plugin", "my plugins/a b.py"],
        ),
    ]
    for call, expected in cases:
        with pytest.raises(StudyError) as caught:
            call()
        assert words(caught.value.fix) == expected
    with pytest.raises(StudyError) as caught:
        load_run(study)
    assert words(caught.value.fix.removeprefix("the folder of a run, such as ")) == [str(run)]


def test_a_run_that_was_moved_aside_is_no_run(run):
    aside = run.with_name(f"{run.name}.damaged")
    aside.mkdir()
    (aside / "result.json").write_text(json.dumps({"seed": 9}))
    assert find_runs([run.parent.parent]) == [run]


def test_another_study_in_the_folder_keeps_its_stages(tmp_path):
    recipe = {
        "name": "small",
        "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 60, "test_rows": 40},
        "training": {"epochs": 1, "batch_size": 30},
        "stages": {"one": {"network": {"kind": "linear"}}},
        "model": {"gate": {"kind": "uniform"}, "experts": [{"kind": "stage", "stage": "one"}, {"kind": "linear"}]},
        "variants": {"linear": {}},
    }
    out = tmp_path / "my runs"
    plan(recipe, out)
    with pytest.raises(StudyError) as caught:
        plan({**recipe, "training": {"epochs": 2, "batch_size": 30}}, out)
    assert words(caught.value.fix) == ["--out", f"{out}-2", "--stages", str(out / "stages")]
