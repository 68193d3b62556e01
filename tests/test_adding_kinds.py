"""Adding a kind to the package is adding a file: done, in a copy of the sources, for every room, and then used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moebius as mb
from moebius.kit.registry import ROOMS

PACKAGE = Path(mb.__file__).parent

FILES = {
    "lab/study/executors/nowhere.py": '''
from moebius.lab.study.executor import Executor


class Nowhere(Executor):
    """Does no job."""

    def do_jobs(self, plan, jobs, data, listener, most):
        pass
''',
    "integrations/elsewhere.py": '''
from moebius.integrations._family import Family


class Elsewhere(Family):
    """Blocks that are nowhere."""

    def recognises(self, block):
        return False

    def attach(self, block, record, outputs):
        return []
''',
    "gates/first_pixels.py": '''
from torch import nn


class FirstPixels(nn.Module):
    """Scores are the first pixels of the image times a learned factor."""

    def __init__(self, experts: int, factor: float = 1.0):
        super().__init__()
        import torch

        self.experts, self.factor = experts, factor
        self.scale = nn.Parameter(torch.full((experts,), factor))

    def forward(self, x):
        return self.scale * x.flatten(1)[:, : self.experts]
''',
    "routers/halved.py": '''
from moebius.core.routing import Router, Routing


class Halved(Router):
    """Every expert has half the weight that the softmax gives it."""

    rows_sum_to = 0.5

    def forward(self, scores):
        probs = scores.softmax(-1)
        return Routing(scores, probs, probs / 2, (probs / 2).log())
''',
    "experts/scaled.py": '''
from torch import nn


class Scaled(nn.Module):
    """A linear map of the pixels, times a constant."""

    def __init__(self, features: int, classes: int, scale: float = 2.0):
        super().__init__()
        self.features, self.classes, self.scale = features, classes, scale
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        return self.scale * self.linear(x.flatten(1))
''',
    "losses/score_size.py": '''
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing


def score_size(routing: Routing, power: int = 2) -> Float[Tensor, ""]:
    """Is small when the scores are small."""
    return routing.scores.abs().pow(power).mean()
''',
    "schedules/zigzag.py": '''
class Zigzag:
    """Two values in turn, epoch by epoch."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def __call__(self, epoch: float) -> float:
        return self.low if int(epoch) % 2 == 0 else self.high
''',
    "combine/plain_sum.py": '''
from moebius.combine.weighted_sum import WeightedSum


class PlainSum(WeightedSum):
    """The weighted sum under another name."""
''',
    "execution/backwards.py": '''
import torch

from moebius.execution._contract import Execution
from moebius.execution.loop import Loop


class Backwards(Execution):
    """The loop, which says that it ran."""

    def run(self, pool, routing, x):
        Backwards.calls = getattr(Backwards, "calls", 0) + 1
        return Loop().run(pool, routing, x)
''',
    "lab/data/augmentation/darker.py": '''
from moebius.lab.data.augmentation._augmentation import Augmentation


class Darker(Augmentation):
    """Halves every pixel."""

    def change(self, images):
        return images / 2
''',
    "lab/data/sources/stripes.py": '''
import numpy as np

from moebius.lab.data.raw import Contents, Raw, RawRow, RawRows, Source


class Stripes(Source):
    """Images of upright and level stripes."""

    def __init__(self, rows: int = 60):
        self.rows = rows

    @property
    def name(self) -> str:
        return "stripes"

    def open(self, data_dir=None):
        return Raw(f"stripes {self.rows}", self.read)

    def read(self):
        def rows():
            for number in range(self.rows):
                label = number % 2
                stripes = np.tile(np.arange(8) % 2 * 200, (8, 1)).astype(np.uint8)
                image = stripes if label else stripes.T.copy()
                yield RawRow(image, label, "stripes", number)

        return Contents(("level", "upright"), RawRows(self.rows, rows), RawRows(self.rows, rows))
''',
    "lab/diagnostics/decided.py": '''
import numpy as np
import pandas as pd


def decided(weights):
    """The share of rows whose largest weight is above one half of all."""
    return pd.DataFrame({"share": [float((weights.max(1) > weights.sum(1) / 2).mean())]})


def table(rows):
    return decided(rows.weights)


ORDER = 66


def section(study):
    from moebius.lab.report.blocks import Section, Text

    share = study.table("decided")["share"].mean()
    return Section("decided", "Decided rows", [Text(f"Decided rows: {share:.3f} of all.")])
''',
}
RECIPE = """
name: added
data: {sets: [{kind: stripes, rows: 80}, {kind: digits}], size: 8, train_rows: 200, test_rows: 100}
training:
  epochs: 1
  losses: [{kind: score_size, weight: 0.1, power: 4}]
  augment: [{kind: darker}]
  optimizer: {lr: {kind: zigzag, low: 1e-3, high: 1e-4}}
model:
  gate: {kind: first_pixels, factor: 0.5}
  router: {kind: halved}
  experts: {kind: scaled, count: 2}
  combine: {kind: plain_sum}
  execution: backwards
variants: {added: {}}
seeds: 2
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A copy of the package with one file more in every room; nothing else is changed."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(PACKAGE, folder / "moebius", ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    for name, text in FILES.items():
        path = folder / "moebius" / name
        assert not path.exists()
        path.write_text(f'"""One more kind."""\n{text}', encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    result = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def test_a_recipe_uses_every_added_kind_in_two_processes(copied):
    (copied / "added.yaml").write_text(RECIPE, encoding="utf-8")
    run(copied, "-m", "moebius", "run", "added.yaml", "--workers", "2", "--cohorts", "never", "--out", "out")
    results = json.loads((copied / "out" / "results.json").read_text(encoding="utf-8"))
    assert [run["variant"] for run in results["runs"]] == ["added", "added"]
    assert (copied / "out" / "tables" / "decided.csv").is_file()
    assert "Decided rows: " in (copied / "out" / "report.html").read_text(encoding="utf-8")
    model = json.loads((copied / "out" / "added" / "seed-0" / "model.json").read_text(encoding="utf-8"))
    assert model["spec"]["gate"]["kind"] == "first_pixels"


def test_the_added_kinds_are_listed_and_saved(copied):
    kinds = {room: [] for room in ROOMS}
    for file in FILES:
        folder, _, name = file.removeprefix("lab/").removesuffix(".py").rpartition("/")
        kinds[folder.replace("/", ".")].append(name)
    listing = f"""
from moebius.kit.registry import catalogue
for room, names in {kinds!r}.items():
    assert set(names) <= {{kind for kind, _, _ in catalogue(room)}}, room
"""
    code = """
import tempfile, torch, moebius as mb
from typer.testing import CliRunner
from moebius.lab.cli import app
folder = tempfile.mkdtemp()
experts = [mb.experts.Scaled(4, 3), mb.experts.Scaled(4, 3)]
moe = mb.Mixture(mb.gates.FirstPixels(2), experts, mb.routers.Halved(), execution="backwards")
mb.save(moe, folder)
x = torch.rand(5, 4)
assert torch.equal(mb.load(folder)(x), moe.eval()(x))
assert mb.execution.Backwards.calls == 2
assert "first_pixels" in CliRunner().invoke(app, ["list", "gates"]).output
"""
    run(copied, "-c", listing + code)
