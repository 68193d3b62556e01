"""Folders of finished studies with a file that is damaged or of another kind."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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
from mutations.models import swap_safetensors
from mutations.trials import Entry
from mutations.values import swap_value

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
READ_BY_REPORTS = ("study.json", "results.json", "routing.parquet", "examples.safetensors")


class Studies(Entry):
    """All that asks for a finished study, one after another; it counts as refused where any of them refuses.

    Arguments:
        folder: for the studies.
        skipped: names of calls to leave out.
    """

    def __init__(self, folder: Path, skipped: Sequence[str] = ()):
        super().__init__(folder)
        path = folder / "recipe.yaml"
        path.write_text(write_yaml(RECIPE), encoding="utf-8")
        self.recipe = load_recipe(str(path))
        self.data = load_data(self.recipe.data.model_dump(mode="json"), None)
        self.whole, self.out, self.picture = folder / "whole", folder / "study", folder / "picture.png"
        self.skipped, self.change = skipped, ""
        Image.fromarray(np.full((8, 8), 100, np.uint8)).save(self.picture)
        self.run_again(self.whole)

    def run_again(self, out: Path) -> None:
        """Run what is not finished."""
        plan = make_plan(self.recipe, self.data, "cpu", 1, out, cohorts="never")
        run_all(plan, [run for run in plan.all_runs if not run.is_finished], self.data, Raiser())
        results = {"schema": 2, "study": "foreign", "runs": collect(plan.runs), "stages": collect(plan.stages)}
        write_json(out / "results.json", results)

    def calls(self) -> dict[str, Callable[[Path, Path], Any]]:
        """Name of a call → the call, with the folder of a study and of a run."""
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

    def mutate(self, draw: random.Random) -> str:
        """Damage a copy of the study."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.whole, self.out)
        self.change = damage(self.out, draw)
        return self.change

    def call(self) -> None:
        """Ask for the study in all ways.

        Raises:
            MoebiusError: the first refusal; every one has a fix.
        """
        refusals: list[MoebiusError] = []
        for name, call in self.calls().items():
            is_read = name not in ("report", "sections") or self.change.split(":")[0].endswith(READ_BY_REPORTS)
            if name in self.skipped or not is_read:
                continue
            try:
                call(self.out, self.out / "soft" / "seed-0")
            except MoebiusError as error:
                if not error.fix:
                    raise ValueError(f"{name}: no fix: {error.message}") from error
                refusals.append(error)
        if refusals:
            raise refusals[0]


def open_explorer(run: Path) -> None:
    """Open the explorer's page and one of its rows."""
    explorer = explore_run(run, 20)
    explorer.page({"order": "largest loss"})
    explorer.row(0)


class Raiser:
    """Raises the error of a run that fails."""

    def show(self, run: Any, event: Any) -> None:
        """Nothing is shown."""

    def finish(self, run: Any) -> None:
        """Nothing is shown."""

    def fail(self, run: Any, error: Exception) -> None:
        """Raise it."""
        raise error


def swap_json(path: Path, draw: random.Random) -> str:
    """Another value, without the digest of the file."""
    value = read_json(path)
    change = swap_value(value, draw)
    path.write_text(json.dumps(value), encoding="utf-8")
    return change


def swap_parquet(path: Path, draw: random.Random) -> str:
    """A column of another type, or none; few rows."""
    table = pq.read_table(path).replace_schema_metadata({})
    name = draw.choice(table.column_names)
    place, rows = table.column_names.index(name), len(table)
    column = draw.choice(
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
    pq.write_table(table.slice(0, draw.choice([0, 1, rows])), path)
    return f"{name}: {'nothing' if column is None else column.type}, {column if column is None else column[0]}"


def nest(path: Path, draw: random.Random) -> str:
    """A hundred thousand levels."""
    path.write_text('{"a":' * 100_000)
    return "nested"


def overwrite(path: Path, draw: random.Random) -> str:
    """Random bytes."""
    content = draw.randbytes(draw.choice([1, 8, 300]))
    path.write_bytes(content)
    return f"{len(content)} random bytes"


def truncate(path: Path, draw: random.Random) -> str:
    """The beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return "truncated"


def remove(path: Path, draw: random.Random) -> str:
    """No file."""
    path.unlink()
    return "removed"


def empty(path: Path, draw: random.Random) -> str:
    """An empty file."""
    path.write_bytes(b"")
    return "empty"


SWAPS = {".json": swap_json, ".safetensors": swap_safetensors, ".parquet": swap_parquet}


def damage(out: Path, draw: random.Random) -> str:
    """Damage a file of a study; returns what was done."""
    run, stage = out / "soft" / "seed-0", next(out.glob("stages/*/seed-0"))
    names = ("model.safetensors", "result.json", "routing.parquet", "examples.safetensors", "job.json", "timing.jsonl")
    files = [*(run / name for name in names), stage / "result.json", stage / "model.safetensors"]
    path = draw.choice([*files, run / names[0], *[out / "study.json", out / "results.json"] * 2])
    swap = SWAPS.get(path.suffix, truncate)
    action = draw.choice([swap] * 8 + [nest, overwrite, truncate, remove, empty])
    return f"{path.relative_to(out)}: {action(path, draw)}"
