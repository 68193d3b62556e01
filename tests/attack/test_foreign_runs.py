"""A study's folder from elsewhere, with a file that is damaged or of another kind: it works, or one error says why."""

import json
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from beartype.roar import BeartypeCallHintViolation
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import moebius as mb
from moebius.kit.errors import MoebiusError
from moebius.kit.files import read_json, write_json
from moebius.lab.comparison import compare
from moebius.lab.explorer import explore_run
from moebius.lab.predict import predict
from moebius.lab.predict.subject import Subject
from moebius.lab.recipe.load import load_recipe
from moebius.lab.report.sections import sections_of
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate
from moebius.lab.study.job_spec import load_data
from moebius.lab.study.plan import make_plan
from moebius.lab.study.run_all import run_all
from moebius.lab.study.run_files import collect
from moebius.lab.yaml_text import write_yaml

LINEAR = {"gate": {"kind": "uniform"}, "experts": [{"kind": "linear"}], "combine": {"kind": "log_mixture"}}
RECIPE = {
    "name": "foreign",
    "title": "A question",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 60, "test_rows": 40, "validation_rows": 20},
    "training": {"epochs": 1, "batch_size": 30, "optimizer": {"kind": "adam", "lr": 1e-2}},
    "stages": {"one": {"model": LINEAR}},
    "model": {
        "gate": {"kind": "linear"},
        "experts": [{"kind": "stage", "stage": "one"}, {"kind": "linear"}],
        "combine": {"kind": "log_mixture"},
    },
    "variants": {"soft": {}, "even": {"gate": {"kind": "uniform"}}},
}


class Study:
    """A finished study and what asks for it."""

    def __init__(self, folder):
        path = folder / "recipe.yaml"
        path.write_text(write_yaml(RECIPE), encoding="utf-8")
        self.recipe = load_recipe(str(path))
        self.data = load_data(self.recipe.data.model_dump(mode="json"), None)
        self.out, self.picture = folder / "whole", folder / "picture.png"
        Image.fromarray(np.full((8, 8), 100, np.uint8)).save(self.picture)
        self.run_again(self.out)

    def run_again(self, out):
        plan = make_plan(self.recipe, self.data, "cpu", 1, out, cohorts="never")
        run_all(plan, [run for run in plan.all_runs if not run.is_finished], self.data, Raiser())
        results = {"schema": 2, "study": "foreign", "runs": collect(plan.runs), "stages": collect(plan.stages)}
        write_json(out / "results.json", results)

    def calls(self):
        """Name of an entry → the call, with the folder of a study and of a run."""
        return {
            "load": lambda out, run: mb.load(run),
            "predict": lambda out, run: predict(run, [self.picture]),
            "explain": lambda out, run: Subject.of(run).read([self.picture]),
            "explore": lambda out, run: open_explorer(run),
            "report": lambda out, run: tabulate(read_study(out)),
            "sections": lambda out, run: sections_of(tabulate(read_study(out))),
            "compare": lambda out, run: compare(out, all_pairs=True).text(100),
            "run": lambda out, run: self.run_again(out),
        }


def open_explorer(run):
    explorer = explore_run(run, 20)
    explorer.page({"order": "largest loss"})
    explorer.row(0)


class Raiser:
    """Raises the error of a run that fails."""

    def show(self, run, event):
        pass

    def finish(self, run):
        pass

    def fail(self, run, error):
        raise error


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("foreign"))


# Values in the place of others.
VALUES = [
    None,
    True,
    -1,
    0,
    7,
    10**12,
    10**400,
    0.5,
    1e308,
    "",
    "text",
    "../../x",
    "a\x00b",
    "\ud800",
    [],
    [[]],
    [1, "a"],
    {},
    {"a": 1},
    {"kind": "linear"},
]


def swap_value(value, numbers):
    """Put another value at a random place of nested values, or take the place away."""
    places = []

    def collect_places(container):
        for key in container if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], dict | list):
                collect_places(container[key])

    collect_places(value)
    container, key = numbers.choice(places)
    if numbers.random() < 0.2:
        del container[key]
        return f"without {key}"
    container[key] = numbers.choice(VALUES)
    return f"{key}={container[key]!r}"[:80]


def swap_json(path, numbers):
    value = read_json(path)  # without its digest
    change = swap_value(value, numbers)
    path.write_text(json.dumps(value), encoding="utf-8")
    return change


def swap_safetensors(path, numbers):
    with safe_open(path, "pt") as file:
        texts = dict(file.metadata() or {})
    tensors = load_file(path)
    change = "no seal"
    for name, text in texts.items():
        if text.startswith("{"):
            value = json.loads(text)
            value.pop("digest", None)
            change = swap_value(value, numbers) if value else change
            texts[name] = json.dumps(value)
    texts.pop("digest", None)
    if numbers.random() < 0.3:
        name = numbers.choice(sorted(tensors))
        change += f", {name} changed"
        tensor = tensors.pop(name)
        if numbers.random() < 0.7:
            tensors[name] = numbers.choice([tensor.flatten()[:0], tensor.flatten(), tensor.bool(), tensor.double()])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)
    return change


def swap_parquet(path, numbers):
    table = pq.read_table(path).replace_schema_metadata({})
    name = numbers.choice(table.column_names)
    place, rows = table.column_names.index(name), len(table)
    column = numbers.choice(
        [
            pa.array(["text"] * rows),
            pa.array([None] * rows, pa.int64()),
            pa.array([10**18] * rows),
            pa.array([-5] * rows),
            pa.array([float("nan")] * rows),
            pa.array([[1, 2]] * rows),
            None,
        ]
    )
    table = table.remove_column(place)
    if column is not None:
        table = table.add_column(place, name, column)
    pq.write_table(table.slice(0, numbers.choice([0, 1, rows])), path)
    return f"{name}: {'nothing' if column is None else column.type}, {column if column is None else column[0]}"


def nest(path, numbers):
    path.write_text('{"a":' * 100_000)
    return "nested"


def overwrite(path, numbers):
    content = numbers.randbytes(numbers.choice([1, 8, 300]))
    path.write_bytes(content)
    return f"{len(content)} random bytes"


def truncate(path, numbers):
    content = path.read_bytes()
    path.write_bytes(content[: numbers.randrange(len(content))])
    return "truncated"


def remove(path, numbers):
    path.unlink()
    return "removed"


def empty(path, numbers):
    path.write_bytes(b"")
    return "empty"


SWAPS = {".json": swap_json, ".safetensors": swap_safetensors, ".parquet": swap_parquet}


def damage(out, numbers):
    """Damage a file of a study; returns what was done."""
    run, stage = out / "soft" / "seed-0", next(out.glob("stages/*/seed-0"))
    names = ("model.safetensors", "result.json", "routing.parquet", "examples.safetensors", "job.json", "timing.jsonl")
    files = [*(run / name for name in names), stage / "result.json", stage / "model.safetensors"]
    path = numbers.choice([*files, run / names[0], *[out / "study.json", out / "results.json"] * 2])
    swap = SWAPS.get(path.suffix, truncate)
    action = numbers.choice([swap] * 8 + [nest, overwrite, truncate, remove, empty])
    return f"{path.relative_to(out)}: {action(path, numbers)}"


READ_BY_REPORTS = ("study.json", "results.json", "routing.parquet", "examples.safetensors")


def check_damages(study, tmp_path, seed, count, skipped=()):
    numbers, refused = random.Random(seed), list[tuple[str | None, str]]()
    for number in range(count):
        out = tmp_path / str(number)
        shutil.copytree(study.out, out)
        change = damage(out, numbers)
        for name, call in study.calls().items():
            if name in skipped or (
                name in ("report", "sections") and not change.split(":")[0].endswith(READ_BY_REPORTS)
            ):
                continue
            try:
                call(out, out / "soft" / "seed-0")
            except MoebiusError as error:
                refused.append((error.fix, f"{change}: {name}"))
            except BeartypeCallHintViolation:
                pass  # the tests' type checks refuse before the component does
            except Exception as error:
                raise AssertionError(f"{change}: {name} ends in {type(error).__name__}") from error
        shutil.rmtree(out)
    assert len(refused) > count / 4
    assert [place for fix, place in refused if not fix] == []


def test_a_foreign_run_works_or_is_refused(study, tmp_path):
    check_damages(study, tmp_path, 0, 40, skipped=("sections",))


@pytest.mark.slow
def test_many_foreign_runs_work_or_are_refused(study, tmp_path):
    check_damages(study, tmp_path, 1, 400)
