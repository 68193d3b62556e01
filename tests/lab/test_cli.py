"""What the commands print when all is well."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from moebius import __version__
from moebius.kit.registry import catalogue
from moebius.lab.cli import app
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.shipped import shipped_recipes

COMMAND = [sys.executable, "-m", "moebius"]
SMALL = """
name: small
data: {sets: [{kind: digits}, {kind: textures, rows_per_class: 20}], size: 8, train_rows: 300, test_rows: 100}
training: {epochs: 1}
model: {gate: {kind: linear}, experts: {kind: linear, count: 2}}
variants: {linear: {}, predesigned: {gate: {kind: domain}, router: {kind: argmax}}}
presets: {quick: {data.train_rows: 200}}
"""


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, env=environment, timeout=300)


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A small study, run by the command itself, in a folder of its own."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(SMALL)
    return folder, command("run", "small.yaml", "--workers", "1", cwd=folder)


def test_the_version():
    result = command("--version")
    assert (result.returncode, result.stdout) == (0, f"moebius {__version__}\n")


def test_help_names_the_commands_and_answers_at_once():
    resource = pytest.importorskip("resource")

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = command("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0
        for name in ("run", "job", "recipes", "show", "report", "predict"):
            assert name in result.stdout
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time and the fastest of some, because other work on the machine only ever adds.
    assert min(seconds() for _ in range(5)) < 0.4


def test_help_does_not_import_torch():
    code = "import sys; from typer.testing import CliRunner; from moebius.lab.cli import app\n"
    code += "CliRunner().invoke(app, ['--help']); CliRunner().invoke(app, ['recipes']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_recipes_lists_all_that_are_shipped():
    result = invoke("recipes")
    assert result.exit_code == 0
    for name in shipped_recipes():
        assert name in result.stdout
    assert "quick" in result.stdout
    assert "predesigned" in result.stdout


def test_list_without_a_room_lists_the_rooms():
    result = invoke("list")
    assert result.exit_code == 0
    for room in ("gates", "routers", "data.augmentation"):
        assert f"│ {room} " in result.stdout
    assert "noisy_top_k" in result.stdout


def test_list_keys_prints_keywords_with_types_and_defaults():
    result = invoke("list", "gates", "--keys")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if "│ dropout" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:4] == ["", "dropout", "a number", "default 0"]
    assert cells[4].startswith("probability that a value after an activation is set to 0")
    assert "filled in from the data" in result.stdout
    assert "no room is called 'gaets'" in invoke("list", "gaets", "--keys").stderr


def test_schema_prints_a_json_schema_and_the_page():
    schema = json.loads(invoke("schema").stdout)
    assert schema["required"] == ["name", "data", "variants"]
    assert schema["$defs"]["Settings"]["properties"]["epochs"]["minimum"] == 1
    assert invoke("schema", "--markdown").stdout.startswith("# Keys of a recipe\n")


def test_show_prints_a_recipe_that_can_be_run_and_its_sizes(tmp_path):
    result = invoke("show", "linear-experts", "training.epochs=3", "--preset", "quick")
    assert result.exit_code == 0
    path = tmp_path / "mine.yaml"
    path.write_text(result.stdout)
    assert load_recipe(str(path)).file == load_recipe("linear-experts", ["training.epochs=3"], "quick").file
    row = next(line for line in result.stderr.splitlines() if "predesigned" in line)
    # Both experts are learned, one of them runs.
    assert "41,000" in row
    assert "20,480" in row


def test_run_leaves_a_study_where_it_says(study):
    folder, result = study
    assert result.returncode == 0, result.stdout + result.stderr
    out = folder / "runs" / "small"
    assert str(Path("runs/small/report.html")) in result.stdout
    assert (out / "report.html").exists()
    results = json.loads((out / "results.json").read_text())
    assert [run["variant"] for run in results["runs"]] == ["linear", "predesigned"]
    assert json.loads((out / "study.json").read_text())["recipe"]["training"]["epochs"] == 1


def test_run_again_has_nothing_left_to_do(study):
    folder, _ = study
    before = (folder / "runs/small/results.json").read_bytes()
    result = command("run", "small.yaml", "--workers", "1", cwd=folder)
    assert result.returncode == 0
    assert (folder / "runs/small/results.json").read_bytes() == before


def test_report_writes_the_page_anew(study):
    folder, _ = study
    page = folder / "runs/small/report.html"
    page.unlink()
    result = invoke("report", str(folder / "runs/small"))
    assert (result.exit_code, result.stdout.strip()) == (0, str(page))
    assert page.exists()


def test_predict_names_class_probability_and_experts(study, tmp_path):
    folder, _ = study
    path = tmp_path / "seven.png"
    Image.fromarray((load_digits().images[7] * 255 / 16).astype(np.uint8)).save(path)
    result = invoke("predict", str(folder / "runs/small/linear/seed-0"), str(path), "--top", "2", "--table")
    assert result.exit_code == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 2
    cells = [cell.strip() for cell in rows[0].strip("│").split("│")]
    assert cells[0] == str(path)
    assert cells[1].split()[0] in ("digits", "textures")
    assert 0 < float(cells[2]) <= 1
    weights = [float(part.split("(")[1].rstrip(")")) for part in cells[3].split(", ")]
    assert sum(weights) == pytest.approx(1, abs=2e-3)


def test_predict_with_a_gate_that_is_told_needs_the_set(study, tmp_path):
    folder, _ = study
    path = tmp_path / "seven.png"
    Image.fromarray((load_digits().images[7] * 255 / 16).astype(np.uint8)).save(path)
    run = str(folder / "runs/small/predesigned/seed-0")
    assert "--domain digits" in invoke("predict", run, str(path)).stderr
    result = invoke("predict", run, str(path), "--domain", "digits", "--table")
    assert result.exit_code == 0
    assert "0 (1.000)" in result.stdout


def test_a_preset_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    result = invoke("run", "small.yaml", "--preset", "quick", "--workers", "1")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs/small-quick/report.html").exists()


def test_cohorts_always_says_which_runs_cannot_form_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    change = "variants.linear.router={kind: gumbel}"
    result = invoke("run", "small.yaml", change, "--seeds", "2", "--cohorts", "always", "--workers", "1")
    assert result.exit_code == 2
    assert "--cohorts always: linear draws random numbers while it trains" in result.stderr
    assert "--cohorts auto" in result.stderr


@pytest.mark.slow
def test_the_quickstart_takes_less_than_a_minute_and_prints_its_results(tmp_path):
    begun = time.monotonic()
    result = command("run", "quickstart", cwd=tmp_path)
    assert time.monotonic() - begun < 60
    assert result.returncode == 0, result.stderr
    for variant in load_recipe("quickstart").variants:
        assert variant.name in result.stdout
    assert "report: runs/quickstart/report.html" in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    arguments = ["run", "quickstart", "training.epochs=500", "--workers", "1", "--out", "a folder"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("a folder/*/seed-0/metrics.jsonl")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: finished runs are kept, and the same command goes on" in stderr
    assert "moebius run quickstart training.epochs=500 --workers 1 --out 'a folder'" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("room", ["gates", "routers", "losses", "experts"])
def test_list_prints_every_kind_with_what_it_does_and_its_source(room):
    result = invoke("list", room)
    assert result.exit_code == 0
    said = " ".join(result.output.replace("│", " ").split())
    for kind, does, source in catalogue(room):
        assert kind in said
        assert does
        assert source
        assert len(does) <= 115


def test_list_of_a_room_that_is_none_names_those_there_are():
    result = invoke("list", "gate")
    assert result.exit_code == 2
    assert "did you mean gates?" in result.output
