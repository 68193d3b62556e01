"""One flipped bit in a file that is read back: the same bits as without it, or an error that names the file."""

import dataclasses
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import moebius as mb
from moebius.kit.errors import MoebiusError
from moebius.kit.files import write_json
from moebius.lab.comparison.models import find_models
from moebius.lab.data.cache import load_decoded
from moebius.lab.data.sources.textures import Textures
from moebius.lab.predict.subject import Subject
from moebius.lab.recipe.load import load_recipe
from moebius.lab.report.example_files import read_examples
from moebius.lab.report.read_rows import read_rows
from moebius.lab.report.source import read_study
from moebius.lab.report.tested_rows import read_test_rows
from moebius.lab.study.job_spec import JobSpec, load_data
from moebius.lab.study.plan import make_plan
from moebius.lab.study.run_all import run_all
from moebius.lab.study.run_files import collect, read_error, write_error
from moebius.lab.training.timing import Timing
from moebius.lab.yaml_text import write_yaml
from moebius.storage.header import read_header

LINEAR = {"gate": {"kind": "uniform"}, "experts": [{"kind": "linear"}], "combine": {"kind": "log_mixture"}}
RECIPE = {
    "name": "flips",
    "title": "A question",
    "data": {
        "sets": [{"kind": "digits"}],
        "size": 8,
        "train_rows": 120,
        "test_rows": 60,
        "validation_rows": 40,
    },
    "training": {"epochs": 2, "batch_size": 40, "optimizer": {"kind": "adam", "lr": 1e-2}, "checkpoint_seconds": 1e-6},
    "stages": {
        name: {"classes": classes, "model": LINEAR}
        for name, classes in (("low", [0, 1, 2, 3, 4]), ("high", [5, 6, 7, 8, 9]))
    },
    "model": {
        "gate": {"kind": "linear"},
        "experts": [{"kind": "stage", "stage": name} for name in ("low", "high")],
        "combine": {"kind": "log_mixture"},
    },
    "variants": {"soft": {}},
}
CLASSES = tuple("0123456789")


class Scene:
    """A finished study and one that was broken off, in one folder."""

    def __init__(self, folder: Path):
        self.folder, self.events = folder, []
        path = folder / "recipe.yaml"
        path.write_text(write_yaml(RECIPE), encoding="utf-8")
        self.recipe = load_recipe(str(path))
        self.data = load_data(self.recipe.data.model_dump(mode="json"), None)
        self.out, self.broken = folder / "whole", folder / "broken"
        with pytest.raises(KeyboardInterrupt):
            self.finish(self.broken, last_step=4)
        shutil.copytree(self.broken, self.out)
        self.finish(self.out)
        (self.run,) = self.plan(self.out).runs
        write_json(self.out / "results.json", {"schema": 2, "study": "flips", "runs": collect([self.run])})
        write_error(dataclasses.replace(self.run, folder=folder / "failed"), MoebiusError("a rule", "a fix"))

    def plan(self, out):
        return make_plan(self.recipe, self.data, "cpu", 1, out)

    def finish(self, out, last_step=None):
        """Train what is not finished; raises the error of a run that fails."""
        plan = self.plan(out)
        unfinished = [run for run in plan.all_runs if not run.is_finished]
        for job in plan.jobs(unfinished):
            job.write()
        self.events = []
        run_all(plan, unfinished, self.data, Listener(self.events, last_step))

    def files(self, out):
        """The bytes of all results of the run."""
        run = out / "soft" / "seed-0"
        paths = [run / name for name in ("metrics.jsonl", "model.safetensors", "routing.parquet")]
        return [path.read_bytes() for path in paths]


class Listener:
    """Keeps the texts, raises errors, and breaks off the variant after a step."""

    def __init__(self, events, last_step):
        self.events, self.last_step = events, last_step

    def show(self, run, event):
        self.events.append(event.text)
        if run.variant == "soft" and event.step == self.last_step:
            raise KeyboardInterrupt

    def finish(self, run):
        pass

    def fail(self, run, error):
        raise error


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("flips"))


def comparable(value):
    """Nested values as what can be compared to the bit."""
    if isinstance(value, Tensor | np.ndarray):
        array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
        return (str(array.dtype), array.shape, array.tolist() if array.dtype == object else array.tobytes())
    if isinstance(value, Mapping):
        return [(str(key), comparable(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    if dataclasses.is_dataclass(value):
        return [comparable(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return value.state_dict() and comparable(value.state_dict()) if isinstance(value, torch.nn.Module) else repr(value)


def decode(scene):
    return load_decoded(Textures(40), 4, "grey", None, scene.folder / "decoded")


def cache_file(scene):
    decode(scene)
    return next((scene.folder / "decoded").glob("*.safetensors"))


def of_run(name):
    return lambda scene: scene.run.folder / name


# Kind of file → the file, and what reads it.
READERS = {
    "model": (of_run("model.safetensors"), lambda scene: mb.load(scene.run.folder)),
    "header": (of_run("model.safetensors"), lambda scene: read_header(scene.run.folder)),
    "result": (of_run("result.json"), lambda scene: collect([scene.run])),
    "result of a prediction": (of_run("result.json"), lambda scene: Subject.of(scene.run.folder).expert_names),
    "error": (lambda scene: scene.folder / "failed" / "error.json", lambda scene: read_error(scene.folder / "failed")),
    "job": (of_run("job.json"), lambda scene: JobSpec.read(scene.run.folder)),
    "times": (of_run("timing.jsonl"), lambda scene: Timing(scene.run.folder).entries()),
    "routing": (of_run("routing.parquet"), lambda scene: read_rows(scene.run.folder / "routing.parquet", CLASSES, ())),
    "routing of tests": (of_run("routing.parquet"), lambda scene: read_test_rows(scene.run.folder)),
    "examples": (of_run("examples.safetensors"), lambda scene: read_examples(scene.run.folder)),
    "study": (lambda scene: scene.out / "study.json", lambda scene: scene.plan(scene.out)),
    "study of a report": (lambda scene: scene.out / "study.json", lambda scene: read_study(scene.out).score),
    "results": (lambda scene: scene.out / "results.json", lambda scene: read_study(scene.out).runs),
    "study of a comparison": (
        lambda scene: scene.out / "study.json",
        lambda scene: find_models([scene.out, scene.broken], None) and None,
    ),
    "decoded images": (cache_file, decode),
}


def flip(path, numbers):
    """Flip one bit of the file; returns its place."""
    content = bytearray(path.read_bytes())
    place = numbers.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"{path.name}, bit {place % 8} of byte {place // 8}"


def attempt(action):
    """What an action gives, and the error that refuses it; one of the two is None. Any other error is the test's."""
    try:
        return comparable(action()), None
    except MoebiusError as error:
        return None, error


def check_reader(scene, kind, flips):
    locate, read = READERS[kind]
    path, numbers, refused = locate(scene), random.Random(kind), 0
    whole, content = attempt(lambda: read(scene))[0], path.read_bytes()
    for _ in range(flips):
        try:
            place = flip(path, numbers)
            outcome, error = attempt(lambda: read(scene))
            assert outcome == whole or (error is not None and error.fix), place
            refused += error is not None
        finally:
            path.write_bytes(content)
    if kind not in ("decoded images", "study of a comparison"):
        assert refused > flips / 2


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_is_what_was_written(scene, kind):
    check_reader(scene, kind, 8)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_is_what_was_written_at_many_places(scene, kind):
    check_reader(scene, kind, 30)


def stage_files(pattern):
    return lambda out: sorted(path for path in (out / "stages").glob(pattern))


# Kind of file → where the study that is resumed has such files, and whether damage is made good.
RESUMED = {
    "checkpoint": (lambda out: [out / "soft" / "seed-0" / "state" / "checkpoint.safetensors"], True),
    "best": (lambda out: [out / "soft" / "seed-0" / "state" / "best.safetensors"], False),
    "stage": (stage_files("*/seed-0/model.safetensors"), False),
    "outputs": (stage_files("*/seed-0/outputs/*.safetensors"), True),
}


def check_resumed(scene, kind, flips, tmp_path):
    find, is_made_good = RESUMED[kind]
    whole, numbers, noticed = scene.files(scene.out), random.Random(kind), 0
    for number in range(flips):
        out = tmp_path / str(number)
        if kind == "best":  # of a run whose last step is done, and whose results are not written
            shutil.copytree(scene.out, out)
            (out / "soft" / "seed-0" / "result.json").unlink()
        else:
            shutil.copytree(scene.broken, out)
        path = numbers.choice(find(out))
        content = path.read_bytes()
        place = flip(path, numbers)
        _, error = attempt(lambda out=out: scene.finish(out))
        if error is None:
            assert scene.files(out) == whole, place
        else:
            assert not is_made_good, f"{place}: {error}"
            assert f"mv {out}" in (error.fix or ""), place
        is_told = any("goes on from the one before" in text for text in scene.events)
        assert is_told == any(out.rglob("*.damaged")), place
        noticed += error is not None or is_told or path.read_bytes() == content
    assert noticed > flips / 2


@pytest.mark.parametrize("kind", RESUMED)
def test_a_study_ends_in_the_same_bits(scene, kind, tmp_path):
    check_resumed(scene, kind, 2, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", RESUMED)
def test_a_study_ends_in_the_same_bits_whatever_the_place(scene, kind, tmp_path):
    check_resumed(scene, kind, 15, tmp_path)
