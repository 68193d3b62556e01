"""Kinds from outside of the package, by the command itself: from a file of the user, and from another distribution."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# On one core, with any number of workers a process has one thread: sums are added up in the same order.
ON_ONE_CORE = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from moebius.__main__ import main
sys.argv[0] = "moebius"
main()
"""
KINDS = '''
"""A gate, a router and a loss that no room has."""
import torch
import moebius as mb
from moebius.kit.arguments import flatten_features


{gate}
class Centred(torch.nn.Module):
    """Scores of a linear map, less their mean.

    Arguments:
        features: D, width of a row.
        experts: E, number of scores per row.
        scale: factor of the scores.
    """

    def __init__(self, features: int, experts: int, scale: float = 1.0):
        super().__init__()
        self.features, self.experts, self.scale = features, experts, scale
        self.map = torch.nn.Linear(features, experts)

    def forward(self, x):
        scores = self.map(flatten_features(x, self.features))
        return self.scale * (scores - scores.mean(-1, keepdim=True))


{router}
class Sharpened(mb.Router):
    """The softmax of the scores times a number.

    Arguments:
        sharpness: the number.
    """

    rows_sum_to = 1.0
    rows_independent = True
    trains_gate = True

    def __init__(self, sharpness: float = 2.0):
        super().__init__()
        self.sharpness = sharpness

    def forward(self, scores):
        log_weights = (self.sharpness * scores).log_softmax(-1)
        weights = log_weights.exp()
        return mb.Routing(scores, weights, weights, log_weights)


{loss}
def mean_square(routing):
    """The mean square of the weights."""
    return routing.weights.square().mean()
'''
PLUGIN = KINDS.format(gate='@mb.register("gates")', router='@mb.register("routers")', loss='@mb.register("losses")')
RECIPE = """
name: small
data: {sets: [{kind: digits}], size: 8, train_rows: 200, test_rows: 100}
training: {epochs: 2, batch_size: 50}
model: {gate: {kind: centred}, router: {kind: sharpened, sharpness: 3}, experts: {kind: linear, count: 2}}
variants:
  plain: {}
  scaled: {gate: {scale: 0.5}, training: {losses: [{kind: mean_square, weight: 0.1}]}}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(RECIPE)
    (tmp_path / "kinds.py").write_text(PLUGIN)
    return tmp_path


def command(*arguments: str, cwd: Path, python_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(python_path)] if python_path is not None else []
    paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "XDG_CACHE_HOME": str(cwd / "cache"),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    return subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


def run_study(out: str, workers: int, cwd: Path, *options: str, python_path: Path | None = None) -> dict[str, bytes]:
    """The bytes of the models and metrics of a study that is run with so many processes."""
    arguments = ["run", "small.yaml", "--out", out, "--workers", str(workers), "--cohorts", "never", *options]
    result = command(*arguments, cwd=cwd, python_path=python_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{workers} at a time, 1 thread each" in result.stdout
    paths = [path for name in ("model.safetensors", "metrics.jsonl") for path in (cwd / out).glob(f"*/seed-0/{name}")]
    assert len(paths) == 4
    return {str(path.relative_to(cwd / out)): path.read_bytes() for path in paths}


def refuse(*arguments: str, cwd: Path) -> str:
    """The complaint of a command that is refused."""
    result = command(*arguments, cwd=cwd)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def plugin_study(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of the study that one process trains with the kinds of the plugin."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "small.yaml").write_text(RECIPE)
    (folder / "kinds.py").write_text(PLUGIN)
    return run_study("one", 1, folder, "--plugin", "kinds.py")


def test_two_workers_with_a_plugin_train_the_models_of_one(here, plugin_study):
    plugin = ("--plugin", "kinds.py")
    assert run_study("two", 2, here, *plugin) == plugin_study
    study = json.loads((here / "two/study.json").read_text())
    (record,) = study["plugins"]
    assert record["file"] == "kinds.py"
    assert study["settled"]["plugins"] == [record["sha256"]]
    losses = json.loads((here / "two/results.json").read_text())["runs"]
    assert [run["variant"] for run in losses] == ["plain", "scaled"]

    Image.new("L", (8, 8)).save(here / "black.png")
    shown = command("predict", "two/plain/seed-0", "black.png", "--table", *plugin, cwd=here)
    assert shown.returncode == 0, shown.stderr
    assert "0 (0." in shown.stdout
    complaint = refuse("predict", "two/plain/seed-0", "black.png", cwd=here)
    assert "no routers kind is called 'sharpened'" in complaint
    assert "fix: --plugin kinds.py" in complaint
    (here / "two/report.html").unlink()
    assert command("report", "two", *plugin, cwd=here).returncode == 0
    assert (here / "two/report.html").exists()


def test_a_study_without_plugins_records_none_and_takes_some_later(here):
    text = RECIPE.replace("centred", "linear").replace("sharpened, sharpness: 3", "soft").replace("scaled", "second")
    text = text.replace("{gate: {scale: 0.5}, training: {losses: [{kind: mean_square, weight: 0.1}]}}", "{}")
    (here / "small.yaml").write_text(text)
    first = run_study("study", 1, here)
    study = json.loads((here / "study/study.json").read_text())
    assert "plugins" not in study
    assert set(study["settled"]) == {"data", "variants"}
    (here / "small.yaml").write_text(text + "  third: {gate: {kind: centred}}\n")
    result = command("run", "small.yaml", "--out", "study", "--plugin", "kinds.py", cwd=here)
    assert result.returncode == 0, result.stderr
    assert (here / "study/third/seed-0/result.json").exists()
    assert all((here / "study" / name).read_bytes() == content for name, content in first.items())


def test_without_the_plugin_the_fix_names_the_option(here):
    complaint = refuse("run", "small.yaml", cwd=here)
    assert "model.gate.kind: no such kind, got 'centred'; one of " in complaint
    assert "or --plugin FILE where a file of yours registers it" in complaint
    complaint = refuse("show", "small.yaml", "--plugin", "kidns.py", cwd=here)
    assert "error: plugin kidns.py: cannot be read" in complaint
    assert not (here / "runs").exists()


def test_show_and_list_know_the_kinds_of_a_plugin(here):
    shown = command("show", "small.yaml", "--plugin", "kinds.py", cwd=here)
    assert shown.returncode == 0, shown.stderr
    assert "kind: centred" in shown.stdout
    listed = command("list", "losses", "--plugin", "kinds.py", cwd=here)
    assert "The mean square of the weights." in listed.stdout
    assert "mean_square" not in command("list", "losses", cwd=here).stdout


SAVED = """
import sys, torch, moebius as mb
gate, router = mb.gates.Centred(4, 2, scale=0.5), mb.routers.Sharpened(3.0)
moe = mb.Mixture(gate, [torch.nn.Linear(4, 3) for _ in range(2)], router).eval()
mb.save(moe, sys.argv[1])
again = mb.load(sys.argv[1], experts=[torch.nn.Linear(4, 3) for _ in range(2)]).eval()
x = torch.randn(5, 4)
assert type(again.gate) is type(gate) and again.gate.scale == 0.5 and again.router.sharpness == 3.0
assert torch.equal(moe(x), again(x))
"""


def test_the_kinds_of_another_distribution_need_no_option(here, plugin_study):
    # What an installer leaves: the module, and metadata with the entry points.
    installed = here / "installed"
    (installed / "centred_kinds-1.0.dist-info").mkdir(parents=True)
    (installed / "centred_kinds.py").write_text(KINDS.format(gate="", router="", loss=""))
    metadata = "Metadata-Version: 2.1\nName: centred-kinds\nVersion: 1.0\n"
    (installed / "centred_kinds-1.0.dist-info/METADATA").write_text(metadata)
    points = (
        "[moebius.gates]\ncentred = centred_kinds:Centred\n[moebius.routers]\nsharpened = centred_kinds:Sharpened\n"
    )
    points += "[moebius.losses]\nmean_square = centred_kinds:mean_square\n"
    (installed / "centred_kinds-1.0.dist-info/entry_points.txt").write_text(points)

    assert run_study("two", 2, here, python_path=installed) == plugin_study
    listed = command("list", "gates", cwd=here, python_path=installed)
    assert "Scores of a linear map, less their mean." in listed.stdout
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
    saved = subprocess.run(
        [sys.executable, "-c", SAVED, str(here / "saved")], env=environment, capture_output=True, text=True
    )
    assert saved.returncode == 0, saved.stderr
