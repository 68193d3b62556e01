"""Writes that fail: after any of them a study ends in one clear error, or goes on; resumed, it has the same bits.

The calls that change something in the folders of a study are counted, and the n-th fails, for every n: as SQLite is
tested.
"""

import collections
import io
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

import moebius as mb
from moebius.kit.errors import MoebiusError
from moebius.lab.report import page, sections, tables
from moebius.lab.yaml_text import write_yaml

sys.path.insert(0, str(Path(__file__).parent))
from faulty_disk import FAULTS, Killed, Shim

sys.path.pop(0)

pytestmark = pytest.mark.filterwarnings("ignore:decoded images are not cached")

LINEAR = {"gate": {"kind": "uniform"}, "experts": [{"kind": "linear"}], "combine": {"kind": "log_mixture"}}
SHARED = {
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 60, "test_rows": 40, "validation_rows": 20},
    "training": {"epochs": 2, "batch_size": 30, "optimizer": {"kind": "adam", "lr": 1e-2}, "checkpoint_seconds": 1e-6},
}
RECIPES = {
    "stage": {
        "name": "stage",
        **SHARED,
        "stages": {"low": {"classes": [0, 1, 2, 3, 4], "model": LINEAR}},
        "model": {
            "gate": {"kind": "linear"},
            "experts": [{"kind": "stage", "stage": "low"}, {"kind": "linear"}],
            "combine": {"kind": "log_mixture"},
        },
        "variants": {"soft": {}},
    },
    "cohort": {
        "name": "cohort",
        **SHARED,
        "seeds": 2,
        "model": {**LINEAR, "gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
        "variants": {"soft": {}},
    },
}
FILES = ("model.safetensors", "metrics.jsonl", "routing.parquet", "examples.safetensors")
RESULTS = "study/**/result.json"


class Scene:
    """A study without a fault, and the names of its calls.

    Arguments:
        folder: for the recipe, and for the trials.
        name: of the recipe.
        patch: gives each trial a folder for decoded data.
    """

    def __init__(self, folder, name, patch):
        self.recipe, self.trial = folder / "recipe.yaml", folder / "trial"
        self.cohorts = "always" if name == "cohort" else "never"
        self.recipe.write_text(write_yaml(RECIPES[name]), encoding="utf-8")
        patch.setenv("XDG_CACHE_HOME", str(self.trial / "cache"))
        with Shim(self.trial) as shim:
            self.run()
        self.calls, self.bits = shim.names, self.files()

    def run(self):
        console = Console(file=io.StringIO())
        mb.lab.run(self.recipe, self.trial / "study", device="cpu", workers=1, cohorts=self.cohorts, console=console)

    def files(self):
        paths = [path.with_name(name) for path in self.trial.glob(RESULTS) for name in FILES]
        return {str(path.relative_to(self.trial)): path.read_bytes() for path in paths if path.exists()}

    def check(self, fault, place):
        """Fail a call and resume; returns how the first command ended."""
        shutil.rmtree(self.trial)
        outcome, complaint = "finished", None
        with Shim(self.trial, FAULTS[fault], place) as shim:
            try:
                self.run()
            except MoebiusError as error:
                outcome, complaint = "error", error
            except Killed:
                outcome = "killed"
        assert len(shim.names) >= place
        assert complaint is None or (complaint.fix and "None" not in complaint.message), complaint
        results = {path: path.read_bytes() for path in self.trial.glob(RESULTS)}
        for leftover in self.trial.rglob(f".*.{os.getpid()}.tmp*"):  # the process that goes on has another number
            leftover.rename(leftover.with_name(leftover.name.replace(f".{os.getpid()}.", ".7.")))
        self.run()
        assert self.files() == self.bits
        assert {path: path.read_bytes() for path in results} == results, "a finished run was trained again"
        leftovers = [path for path in self.trial.rglob("*") if ".tmp" in path.name or ".damaged" in path.name]
        # Others may be writing into these two; a study removes what is older than an hour from the second.
        assert not [path for path in leftovers if path.parent.name not in ("moebius", "outputs")]
        assert (self.trial / "study" / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
        return outcome


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    # Tables, sections and drawings take most of the time, and are the same in all trials; they are written each time.
    def remember(make, key):
        results = {}

        def remembered(subject):
            if key(subject) not in results:
                results[key(subject)] = make(subject)
            return results[key(subject)]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        few_sections = remember(lambda study, make=sections.sections_of: make(study)[:3], lambda study: study.name)
        patch.setattr(sections, "sections_of", few_sections)  # the others are written likewise
        patch.setattr(tables, "tabulate", remember(tables.tabulate, lambda study: study.name))
        patch.setattr(page, "render", remember(page.render, lambda figure: None))
        yield {name: Scene(tmp_path_factory.mktemp(name), name, patch) for name in RECIPES}


@pytest.fixture(params=RECIPES)
def scene(scenes, request, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(scenes[request.param].trial / "cache"))
    return scenes[request.param]


def test_every_kind_of_call_is_counted(scene):
    kinds = collections.Counter(name.split()[0] for name in scene.calls)
    assert kinds.keys() >= {"mkdir", "open", "write", "chmod", "fsync", "replace", "unlink", "tensors", "parquet"}
    assert {name.split("/")[-1] for name in scene.bits} == set(FILES)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_study_goes_on_after_a_call_that_fails(scene, fault):
    place = random.Random(fault + scene.cohorts).randint(1, len(scene.calls))
    assert (scene.check(fault, place) == "killed") == (fault == "killed")


@pytest.mark.thorough
def test_a_study_goes_on_after_any_call_that_fails(scene):
    outcomes = collections.Counter()
    for place in range(1, len(scene.calls) + 1):
        fault = list(FAULTS)[place % len(FAULTS)]
        outcomes[fault, scene.check(fault, place)] += 1
    assert outcomes["killed", "killed"] == sum(place % len(FAULTS) == 4 for place in range(1, len(scene.calls) + 1))
    assert sum(number for (_, outcome), number in outcomes.items() if outcome == "error") > len(scene.calls) / 2
