"""What a process reads of its job: the same as was planned, from wherever it is started and wherever the study lies."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moebius.kit.errors import StudyError
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.study.job_spec import JobSpec


@pytest.fixture
def job(planned, tmp_path):
    """The cohort of a variant at two seeds."""
    study = planned(tmp_path / "out", "variants={linear: {}}", seeds=2)
    (job,) = study.plan.jobs(study.plan.runs)
    return job


def test_a_job_is_read_as_it_was_written_and_written_once(job):
    strange = {**job.runs[0].model, "fill": -math.inf, "steps": None}
    plugin = Plugin("mine.py", Path("/plugins/mine.py"), "0f1e")
    runs = (replace(job.runs[0], model=strange), job.runs[1])
    job = replace(job, runs=runs, data_dir=Path("/data"), plugins=(plugin,))
    job.write()
    assert JobSpec.read(job.folder) == job
    path = job.folder / "job.json"
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    job.write()
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    job.write()
    assert path.read_bytes() == before


def test_a_moved_study_and_a_relative_folder_name_the_same_runs(job, tmp_path, monkeypatch):
    job.write()
    shutil.move(tmp_path / "out", tmp_path / "moved")
    moved = JobSpec.read(tmp_path / "moved" / "linear" / "seed-0")
    assert [run.folder for run in moved.runs] == [tmp_path / "moved" / "linear" / f"seed-{seed}" for seed in (0, 1)]
    monkeypatch.chdir(tmp_path / "moved" / "linear")
    assert [run.folder for run in JobSpec.read(Path("seed-0")).runs] == [Path("seed-0"), Path("seed-1")]
    assert moved.load_data().fingerprint == job.fingerprint


@pytest.mark.parametrize("elsewhere", [False, True])
def test_stages_beside_the_study_stay_where_they_are(elsewhere, stage_study, few_stages, stage_recipe, tmp_path):
    stages_dir = tmp_path / "stages" if elsewhere else None
    study = stage_study(stage_recipe(few_stages()), tmp_path / "out", stages_dir=stages_dir)
    jobs = study.plan.jobs(study.plan.all_runs)
    for job in jobs:
        job.write()
        assert JobSpec.read(job.folder) == job
    shutil.move(tmp_path / "out", tmp_path / "moved")
    (old,) = (job.runs[0] for job in jobs if job.runs[0].variant == "alone")
    (run,) = JobSpec.read(tmp_path / "moved" / "alone" / "seed-0").runs
    before = old.folders["b"]
    assert run.folders == {"b": before if elsewhere else tmp_path / "moved" / before.relative_to(tmp_path / "out")}


def test_relative_paths_of_data_begin_where_the_study_was_planned(job, tmp_path, monkeypatch):
    data, seen = job.load_data(), []
    monkeypatch.setattr("moebius.lab.study.job_spec._load_data", lambda *spec: seen.append(Path.cwd()) or data)
    for directory in (tmp_path, tmp_path / "gone"):
        replace(job, directory=directory).load_data()
    assert seen == [tmp_path, Path.cwd()]


def test_what_is_not_as_it_was_planned_is_refused(job):
    with pytest.raises(StudyError, match="the data are not those that the study was planned with"):
        replace(job, fingerprint="another").load_data()
    if not torch.cuda.is_available():
        with pytest.raises(StudyError, match="was planned for a GPU"):
            replace(job, device="cuda").load_data()


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": 1000}', '{"schema": 1, "runs": 3}'])
def test_a_job_that_is_none_is_refused(text, tmp_path):
    folder = tmp_path / "linear" / "seed-0"
    with pytest.raises(StudyError, match=r"seed-0: holds no job\.json") as caught:
        JobSpec.read(folder)
    assert f"--out {tmp_path} --plan-only" in (caught.value.fix or "")
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(text)
    with pytest.raises(StudyError, match=r"job\.json: cannot be read") as caught:
        JobSpec.read(folder)
    assert "--plan-only" in (caught.value.fix or "")


def test_it_is_plain_json(job):
    job.write()
    content = json.loads((job.folder / "job.json").read_text())
    assert content["schema"] == 1
    assert [(run["variant"], run["seed"], run["folder"]) for run in content["runs"]] == [
        ("linear", 0, "."),
        ("linear", 1, "../seed-1"),
    ]
