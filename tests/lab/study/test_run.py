import json
import os
import re
import signal
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from moebius.kit.errors import ArgumentError, StudyError, TrainingError
from moebius.lab.study import run

ONE = "variants={linear: {}}"
LONG = ("training.epochs=2000", "training.checkpoint_seconds=1", "data.train_rows=1500")
DIVERGES = (
    "variants={linear: {}, bad: {experts: {kind: mlp, hidden: [8]}, training: {optimizer: {kind: sgd, lr: 1e30}}}}"
)


@pytest.fixture
def console():
    return Console(file=StringIO(), width=120, color_system=None)


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def workers_of(out: Path) -> set[int]:
    return {int(path.read_text()) for path in out.glob("*/seed-*/state/.pid") if path.read_text()}


def begun(out: Path, runs: int) -> bool:
    return len(list(out.glob("*/seed-*/state/checkpoint.safetensors"))) == runs


def test_a_study_leaves_results_and_report_and_grows_by_seeds(small_recipe, console, tmp_path):
    out = tmp_path / "study"
    assert run(small_recipe(ONE), out, workers=1, console=console) == out
    assert (out / "report.html").exists()
    text = console.file.getvalue()
    assert "data: digits + textures, 120 training rows, 200 test rows\n" in text
    assert re.search(
        r"^linear/seed-0 epoch 1/2 · train accuracy 0\.\d{3} loss \d\.\d{3} · [\d,]+ images/s · test 0\.\d{3}"
        r" · \d+:\d\d left$",
        text,
        re.MULTILINE,
    )
    assert f"report: {out / 'report.html'}\n" in text
    results = json.loads((out / "results.json").read_text())
    assert (results["schema"], results["study"]) == (2, "small")
    (first,) = results["runs"]
    weights = out / "linear" / "seed-0" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns

    (out / ".results.json.77.tmp.json").write_text("half")
    run(small_recipe(ONE, seeds=2), out, workers=1, console=console)
    assert "2 runs, 1 to do" in console.file.getvalue()
    assert weights.stat().st_mtime_ns == stamp
    results = json.loads((out / "results.json").read_text())
    assert results["runs"][0] == first
    assert [entry["seed"] for entry in results["runs"]] == [0, 1]
    assert results["runs"][1]["epochs"] != first["epochs"]
    assert not list(out.rglob("*.tmp*"))


def test_failed_runs_are_named_and_no_results_are_written(small_recipe, console, tmp_path):
    with pytest.raises(TrainingError, match=r"bad/seed-0: epoch 1, step \d+: cross_entropy is not a finite number"):
        run(small_recipe(DIVERGES), tmp_path, workers=1, console=console)
    assert (tmp_path / "linear" / "seed-0" / "result.json").exists()
    assert not (tmp_path / "results.json").exists()
    assert "finished linear/seed-0, 1 of 2 runs" in console.file.getvalue()


def test_a_folder_that_cannot_be_written_is_refused(small_recipe, console, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="cannot be written"):
        run(small_recipe(), tmp_path / "file" / "study", console=console)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_device_is_refused_before_anything_is_made(small_recipe, console, tmp_path):
    with pytest.raises(ArgumentError, match="needs auto, cpu or cuda, got 'tpu'"):
        run(small_recipe(), tmp_path / "study", device="tpu", console=console)
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_is_refused(small_recipe, console, tmp_path):
    with pytest.raises(StudyError, match="no GPU") as error:
        run(small_recipe(), tmp_path / "study", device="cuda", console=console)
    assert error.value.fix == "--device cpu"
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_killed_then_restarted_at_once_then_interrupted(small_recipe, started, tmp_path):
    command = ("run", small_recipe().reference, *LONG, "--workers", 2, "--out", tmp_path)
    process = started(*command)
    until(lambda: begun(tmp_path, 2) or process.poll() is not None)
    assert process.poll() is None
    orphans = workers_of(tmp_path)
    assert len(orphans) == 2
    assert process.pid not in orphans

    process.kill()  # the parent alone
    process.wait()
    again = started(*command)
    until(lambda: not any(lives(pid) for pid in orphans), 5)
    assert again.stdout is not None
    text = ""
    while text.count("resumed ") < 2:
        line = again.stdout.readline()
        assert line, f"ended with {again.wait()}:\n{text}"
        text += line
    resumed = re.findall(r"^resumed (\S+) at epoch (\d+) step (\d+)$", text, re.MULTILINE)
    assert sorted(name for name, _, _ in resumed) == ["conv/seed-0", "linear/seed-0"]
    assert all(int(step) > 0 and int(epoch) == int(step) // 38 + 1 for _, epoch, step in resumed)

    workers = workers_of(tmp_path)
    os.killpg(again.pid, signal.SIGINT)  # as Ctrl-C does
    rest, _ = again.communicate(timeout=30)
    assert again.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in text + rest
    assert not any(lives(pid) for pid in workers)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_a_killed_cohort_ends_in_the_uninterrupted_bits(small_recipe, started, tmp_path):
    changes = (ONE, "training.epochs=8", "training.checkpoint_seconds=0.05")
    command = ("run", small_recipe().reference, *changes, "--seeds", 3, "--workers", 1, "--out")
    uninterrupted = started(*command, tmp_path / "whole")
    output, _ = uninterrupted.communicate(timeout=120)
    assert uninterrupted.returncode == 0, output
    assert "3 runs, 3 to do · cpu, 1 at a time" in output
    assert "· 1 cohort of 3 runs\n" in output
    out = tmp_path / "killed"
    process = started(*command, out)
    until(lambda: len(list(out.glob("*/seed-*/metrics.jsonl"))) == 3 or process.poll() is not None)
    process.kill()
    process.wait()
    assert not (out / "results.json").exists()
    again = started(*command, out)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    resumed = re.findall(r"^resumed (\S+) at epoch (\d+) step (\d+)$", output, re.MULTILINE)
    assert [name for name, _, _ in resumed] == [f"linear/seed-{seed}" for seed in range(3)]
    assert all(int(step) > 0 for _, _, step in resumed)
    for seed in range(3):
        for name in ("model.safetensors", "metrics.jsonl", "routing.parquet"):
            expected_file, file = (folder / "linear" / f"seed-{seed}" / name for folder in (tmp_path / "whole", out))
            assert expected_file.read_bytes() == file.read_bytes(), name


def test_a_run_of_a_cohort_that_diverges_is_named_and_the_others_finish(small_recipe, console, tmp_path):
    bad = "variants={linear: {}, bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}}"
    with pytest.raises(TrainingError, match=r"bad/seed-0: epoch 1, step 1: .*is not a finite number"):
        run(small_recipe(bad), tmp_path, workers=1, console=console, cohorts="always")
    text = console.file.getvalue()
    assert "· 1 cohort of 2 runs\n" in text
    assert "failed bad/seed-0: " in text
    assert "finished linear/seed-0, 1 of 2 runs" in text


def test_interrupted_while_workers_start(small_recipe, started, tmp_path):
    process = started("run", small_recipe().reference, *LONG, "--workers", 2, "--out", tmp_path)
    assert process.stdout is not None
    text = ""
    while "2 runs, 2 to do" not in text:
        line = process.stdout.readline()
        assert line, text
        text += line
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in text + rest
