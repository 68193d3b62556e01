"""`moebius job`: a study whose jobs other programs start, and the report that is made of them afterwards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from moebius.kit.files import read_json
from moebius.lab.cli import app

RECIPE = """
name: small
data: {sets: [{kind: folder, path: pictures}, {kind: digits}], size: 8, train_rows: 200, test_rows: 50}
training: {epochs: 2, batch_size: 50}
pretraining: {network: {kind: linear}}
stages: {base: {}}
model: {gate: {kind: linear}, experts: {kind: linear, count: 2}}
variants: {linear: {}, staged: {experts: [{kind: stage, stage: base}, {kind: linear}]}}
seeds: 2
"""
FILES = ("model.safetensors", "metrics.jsonl", "routing.parquet")


def moebius(*arguments: object):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The complaint of a command that ends with 2, without a traceback."""
    result = moebius(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder to run in, with a recipe whose data lie at a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(RECIPE)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 8, 8), np.uint8)
    for name, images in zip(("dark", "light"), pixels, strict=True):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path


def bits(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for file in FILES for path in out.rglob(file)}


def test_jobs_that_others_start_give_the_study_of_one_command(here, monkeypatch):
    plan = ("run", "small.yaml", "--workers", 1)
    assert moebius(*plan, "--out", "whole").exit_code == 0
    planned = moebius(*plan, "--out", "out", "--plan-only")
    assert planned.exit_code == 0, planned.stderr
    folders = [Path(line) for line in planned.stdout.splitlines()]
    # The two seeds of `linear` are one job.
    assert [path.parent.name.partition("-")[0] for path in folders] == ["base", "base", "linear", "staged", "staged"]
    assert not bits(here / "out")

    # The study moves, and the jobs begin elsewhere.
    shutil.move(here / "out", here / "moved")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    folders = [here / "moved" / (here / path).relative_to(here / "out") for path in folders]
    stages, staged = folders[:2], folders[3]
    complaint = refused("job", staged)
    assert "error: staged/seed-0: not begun: stage base/seed-0 is not finished" in complaint
    assert f"fix: moebius job {stages[0]}" in complaint
    assert read_json(staged / "error.json") == {
        "message": "not begun: stage base/seed-0 is not finished",
        "fix": f"moebius job {stages[0]}",
    }
    result = moebius("job", *folders)
    assert result.exit_code == 0, result.output
    assert "finished staged/seed-1, 6 of 6 runs" in result.stdout
    assert not list(here.rglob("error.json"))
    again = moebius("job", staged)
    assert (again.exit_code, again.stdout) == (0, f"{staged}: is finished\n")

    monkeypatch.chdir(here)
    shutil.move(here / "moved", here / "out")
    collected = moebius(*plan, "--out", "out")
    assert collected.exit_code == 0, collected.stderr
    assert "2 stages and 4 runs, 0 to do" in collected.stdout
    assert (here / "out" / "report.html").exists()
    assert bits(here / "out") == bits(here / "whole")
    assert moebius(*plan, "--out", "out", "--plan-only").stdout == ""


def test_one_job_that_fails_does_not_stop_the_next(here):
    text = RECIPE.replace("linear: {}, staged", "bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}, staged")
    (here / "small.yaml").write_text(text)
    planned = moebius("run", "small.yaml", "--seeds", 1, "--plan-only", "--workers", 1)
    stage, bad, staged = planned.stdout.split()
    complaint = refused("job", stage, bad, staged)
    assert "error: bad/seed-0: epoch 1, step 1: " in complaint
    assert json.loads((here / bad / "error.json").read_text())["message"] in complaint.replace("\n", " ")
    assert (here / staged / "result.json").exists()


def test_a_folder_without_a_job_is_refused_by_the_command_itself(here):
    command = [sys.executable, "-m", "moebius", "job", "runs/small/linear/seed-0"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: runs/small/linear/seed-0: holds no job.json\n"
        "  fix: moebius run RECIPE --out runs/small --plan-only    # prints the folders that hold jobs\n"
    )
