"""Data sources and augmentations from outside of the package work in recipes, in `load_sets`, and in its cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from moebius.kit.errors import RecipeError
from moebius.kit.registry import find
from moebius.lab.data import load_sets
from moebius.lab.data.augmentation._augmentation import Augmentation, check_fraction
from moebius.lab.data.augmented_views import make_augmented_views
from moebius.lab.data.raw import Contents, Raw, RawRow, RawRows, Source, hash_content
from moebius.lab.recipe import load_recipe

RECIPE = """
name: outside
title: Kinds from outside
data: {sets: [{kind: digits}, {kind: stripes, rows: 40}], size: 8, train_rows: 100, test_rows: 40}
training: {epochs: 1, batch_size: 50, augment: [{kind: darken, factor: 0.5}]}
model:
  gate: {kind: linear}
  experts: {kind: linear, count: 2}
variants:
  linear:
seeds: 1
"""


class Stripes(Source):
    """Horizontal and vertical stripes."""

    name = "stripes"
    reads = 0

    def __init__(self, rows: int = 40):
        self.rows = rows

    def open(self, data_dir: Path | None = None) -> Raw:
        return Raw(hash_content([], "stripes", self.rows), self._read)

    def _read(self) -> Contents:
        Stripes.reads += 1
        stripes = np.tile(np.array([0, 255], np.uint8), (8, 4))
        images = [stripes if number % 2 else stripes.T for number in range(self.rows)]
        rows = [RawRow(image, number % 2, "stripes", number) for number, image in enumerate(images)]
        train, test = rows[: self.rows // 2], rows[self.rows // 2 :]
        return Contents(("across", "down"), RawRows(len(train), lambda: train), RawRows(len(test), lambda: test))


class Darken(Augmentation):
    """Multiplies each image by a factor."""

    def __init__(self, factor: float = 0.5):
        self.factor = check_fraction("factor", factor)

    def change(self, images):
        return images * self.factor


@pytest.fixture
def registered(register):
    register("data.sources")(Stripes)
    register("data.augmentation")(Darken)


@pytest.fixture
def write_recipe(tmp_path):
    def write(old: str = "", new: str = "") -> str:
        (tmp_path / "outside.yaml").write_text(RECIPE.replace(old, new))
        return str(tmp_path / "outside.yaml")

    return write


@pytest.mark.usefixtures("registered")
def test_a_recipe_takes_the_kinds(write_recipe):
    recipe = load_recipe(write_recipe())
    assert recipe.data.sets[1] == {"kind": "stripes", "rows": 40}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("stripes, rows: 40", "stripes, rows: many", "data.sets[1].rows: needs a whole number, got 'many'"),
        (
            "stripes, rows: 40",
            "stripes, row: 40",
            "data.sets[1].row: stripes has no such keyword, got 40; did you mean rows?",
        ),
        ("stripes", "stripe", "data.sets[1].kind: no such kind, got 'stripe'; did you mean stripes?"),
        ("factor: 0.5", "factor: 2", "training.augment[0].factor: needs a number between 0 and 1, got 2; factor: 0.5"),
        ("darken", "darker", "training.augment[0].kind: no such kind, got 'darker'; did you mean darken?"),
    ],
)
def test_a_recipe_is_checked_against_their_constructors(write_recipe, old, new, line):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(old, new))
    assert caught.value.problems == (line,)


@pytest.mark.usefixtures("registered")
def test_a_source_is_decoded_once_for_each_of_its_identities(tmp_path):
    before = Stripes.reads
    stripes, again, fewer = (
        load_sets([find("data.sources", "digits")(), find("data.sources", "stripes")(rows=rows)], 8, cache_dir=tmp_path)
        for rows in (40, 40, 20)
    )
    assert Stripes.reads == before + 2
    assert stripes.domains == ("digits", "stripes")
    assert stripes.classes[10:] == ("stripes across", "stripes down")
    assert stripes.train.labels[-2:].tolist() == [10, 11]
    assert again.fingerprint == stripes.fingerprint != fewer.fingerprint
    assert torch.equal(again.train.images, stripes.train.images)


@pytest.mark.usefixtures("registered")
def test_an_augmentation_makes_views(tmp_path):
    split = load_sets([Stripes()], 8, cache_dir=tmp_path).train
    views = make_augmented_views(split, [find("data.augmentation", "darken")(factor=0.2)], count=2, seed=0)
    assert torch.equal(views.images, (split.images // 5).repeat(2, 1, 1, 1))


def test_kinds_of_another_distribution_run_in_a_study(write_recipe, tmp_path):
    """The distribution is a module and its metadata on the path of a process, as pip installs them."""
    site = tmp_path / "site"
    metadata = site / "outside_kinds-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-kinds\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[moebius.data.sources]\nstripes = outside_kinds:Stripes\n\n"
        "[moebius.data.augmentation]\ndarken = outside_kinds:Darken\n"
    )
    (site / "outside_kinds.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "moebius", "run", write_recipe(), "--out", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "data: digits + stripes, 100 training rows" in process.stdout
    (run,) = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert run["variant"] == "linear"
