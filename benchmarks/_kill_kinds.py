"""The studies that `kill_resume.py` kills, and whom."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINEAR = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}, "combine": {"kind": "log_mixture"}}
PART = {"gate": {"kind": "uniform"}, "experts": [{"kind": "linear"}], "combine": {"kind": "log_mixture"}}
STAGES = {
    name: {"classes": classes, "model": PART} for name, classes in (("low", [0, 1, 2, 3, 4]), ("high", [5, 6, 7, 8, 9]))
}
CONV = {"gate": {"kind": "mlp", "hidden": [16]}, "experts": {"kind": "conv", "filters": [4, 8], "hidden": [16]}}
NOISY = {"router": {"kind": "noisy_top_k", "k": 1}}
EXPERTS = [{"kind": "stage", "stage": "low"}, {"kind": "stage", "stage": "high"}]


def make_recipe(name: str, epochs: int, augment: Sequence[str] = ("noise",), **keys: Any) -> dict[str, Any]:
    """A recipe on scikit-learn's digits, with a checkpoint after nearly every step."""
    return {
        "name": f"kill-{name}",
        "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 200, "test_rows": 50, "validation_rows": 50},
        "training": {
            "epochs": epochs,
            "batch_size": 40,
            "optimizer": {"kind": "adam", "lr": 3e-3},
            "precision": "fp32",
            "augment": [{"kind": kind} for kind in augment],
            "checkpoint_seconds": 0.01,
        },
        "model": LINEAR,
        "variants": {"linear": {}},
        **keys,
    }


@dataclass(frozen=True)
class Kind:
    """A kind of trial.

    Arguments:
        recipe: of the study.
        options: of `moebius run`, or of `plan` where the study has a fork.
        targets: whom the trials kill, in turn: the command, a process that it has started, or all in its group.
        has_fork: whether a fork of a process that has imported moebius does the study, without its report, in the place
            of the command `moebius run`.
    """

    recipe: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("command",)
    has_fork: bool = True


KINDS = {
    "single": Kind(
        make_recipe("single", 4, variants={"linear": {}, "noisy": NOISY, "conv": CONV}), {"cohorts": "never"}
    ),
    "cohort": Kind(make_recipe("cohort", 6, (), seeds=4), {"cohorts": "always"}),
    "stages": Kind(
        make_recipe("stages", 4, stages=STAGES, variants={"soft": {"experts": EXPERTS}, "linear": {}}),
        {"cohorts": "never"},
    ),
    "workers": Kind(
        make_recipe("workers", 30, stages=STAGES, variants={"soft": {"experts": EXPERTS}, "conv": CONV}),
        {"workers": 2, "cohorts": "never"},
        ("child", "command", "group"),
        has_fork=False,
    ),
    "processes": Kind(
        make_recipe("processes", 4, variants={"noisy": NOISY}),
        {"nproc": 2, "workers": 1, "cohorts": "never"},
        ("child", "command", "group"),
        has_fork=False,
    ),
}
FILES = (
    "model.safetensors",
    "state/checkpoint.safetensors",
    "metrics.jsonl",
    "routing.parquet",
    "examples.safetensors",
)


def find_runs(out: Path, file: str) -> list[Path]:
    """The folders of runs and stages that hold a file."""
    return sorted(folder for folder in out.glob("**/seed-*") if (folder / file).exists())


def find_unfinished(out: Path) -> list[Path]:
    """The folders of runs and stages that have made a step and are not finished."""
    return [run for run in find_runs(out, "state/checkpoint.safetensors") if not (run / "result.json").exists()]


def read_bits(out: Path) -> dict[str, bytes]:
    """The contents of the files of all finished runs and stages."""
    paths = [run / file for run in find_runs(out, "result.json") for file in FILES]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.exists()}


def read_results(out: Path) -> dict[Path, bytes]:
    """What has to stay as it is: the results of finished runs and stages."""
    return {run: (run / "result.json").read_bytes() for run in find_runs(out, "result.json")}


def list_problems(out: Path, bits: Mapping[str, bytes], results: Mapping[Path, bytes]) -> list[str]:
    """What is not as in the uninterrupted study; and results that have changed, and files that were left behind.

    Arguments:
        out: folder of the study that was killed and resumed.
        bits: of the uninterrupted study.
        results: of the runs that were finished at the kill.
    """
    actual = read_bits(out)
    problems = [f"{name} differs" for name in sorted({*bits, *actual}) if bits.get(name) != actual.get(name)]
    problems += [f"{run} was trained again" for run, text in results.items() if read_results(out).get(run) != text]
    leftovers = [path for path in out.rglob("*") if ".tmp" in path.name or ".damaged" in path.name]
    # Other studies may write there, too: what a killed process leaves is removed after an hour.
    leftovers = [path for path in leftovers if path.parent.name != "outputs"]
    return problems + [f"{path.relative_to(out)} was left behind" for path in leftovers]


def empty(folder: Path) -> Path:
    """The folder, without what was in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
