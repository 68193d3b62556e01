"""What a study will run, decided once and kept in `study.json`, so that a resumed run computes the same bits."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moebius.build import build_mixture
from moebius.data.split import Dataset
from moebius.errors import StudyError
from moebius.files import read_json, write_json
from moebius.recipe.schema import Recipe
from moebius.training.precision import choose_precision
from moebius.version import __version__

SCHEMA = 1
# The parts of a recipe that results depend on.
SETTLING = ("data", "training", "model", "variants")
ABSENT = "nothing"


@dataclass(frozen=True)
class RunPlan:
    """One variant at one seed.

    Arguments:
        variant, seed: which.
        model: for `build_mixture`.
        training: for `Settings.from_plain`, precision decided.
        precision_reason: why that precision.
    """

    variant: str
    seed: int
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    precision_reason: str

    @property
    def name(self) -> str:
        """How messages call it: VARIANT/seed-N, also its folder."""
        return f"{self.variant}/seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a study and how they share the machine.

    Arguments:
        runs: seed by seed, so that every variant has a first result early.
        data: what `moebius.data.load` is given.
        facts: of the data, for `build_mixture`.
        device: "cpu" or "cuda".
        workers: how many processes train at a time.
        threads: for the products of each. Part of the plan because sums in another order have other bits.
    """

    runs: tuple[RunPlan, ...]
    data: Mapping[str, Any]
    facts: Mapping[str, int]
    device: str
    workers: int
    threads: int


def make_plan(recipe: Recipe, data: Dataset, device: str, workers: int | None, out: Path) -> Plan:
    """Plan the study, or take up the plan that the folder holds.

    Raises:
        StudyError: the folder holds a study of another recipe or other data.
    """
    settled = _settled(recipe, data)
    path = out / "study.json"
    before = _read(path) if path.exists() else None
    if before is not None and not _goes_on(before["settled"], settled):
        raise StudyError(f"{out}: holds another study ({_differences(before, recipe, data)})", f"--out {out}-2")
    if before is None:
        cores = _cores()
        count = len(recipe.variants) * recipe.seeds
        together = workers or (1 if device == "cuda" else min(cores, count))
        threads = max(1, cores // together)
    else:
        threads = before["machine"]["threads"]
        together = workers or before["machine"]["workers"]
        device = before["machine"]["device"]
        if device == "cuda" and not torch.cuda.is_available():
            rule = "was begun on a GPU, which other bits come from than from a CPU, and torch finds none here"
            raise StudyError(f"{out}: {rule}", f"--out {out}-2")
    variants = []
    for variant in recipe.variants:
        training = variant.training.model_dump(mode="json")
        if before is not None and variant.name in before["precision"]:
            precision, reason = before["precision"][variant.name]
        else:
            model = build_mixture(variant.model, data.facts)
            precision, reason = choose_precision(training["precision"], model, data.facts, torch.device(device))
        variants.append((variant, {**training, "precision": precision}, reason))
    runs = tuple(
        RunPlan(variant.name, seed, variant.model, training, reason)
        for seed in range(recipe.seeds)
        for variant, training, reason in variants
    )
    plan = Plan(runs, recipe.data.model_dump(mode="json"), data.facts, device, together, threads)
    write_json(path, _study_json(recipe, data, plan, settled))
    return plan


def _settled(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """Hashes of all that the results depend on; variants and seeds may be added, and words may change."""
    without = {"checkpoint_seconds"}
    variants = {v.name: [dict(v.model), v.training.model_dump(mode="json", exclude=without)] for v in recipe.variants}
    return {
        "data": data.fingerprint,
        "variants": {
            name: hashlib.sha256(json.dumps(variant, sort_keys=True).encode()).hexdigest()[:16]
            for name, variant in variants.items()
        },
    }


def _goes_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all that was begun is still asked for, unchanged."""
    begun = before["variants"].items()
    return before["data"] == now["data"] and all(now["variants"].get(name) == settled for name, settled in begun)


def _differences(before: Mapping[str, Any], recipe: Recipe, data: Dataset) -> str:
    if before["data"]["fingerprint"] != data.fingerprint:
        return "its data differ"
    old, new = (_flat({key: whole[key] for key in SETTLING}) for whole in (before["recipe"], recipe.resolved()))
    begun = set(before["settled"]["variants"])
    added = {name for name in recipe.resolved_variants() if name not in begun}
    changed = [key for key in {**old, **new} if old.get(key, ABSENT) != new.get(key, ABSENT)]
    changed = [key for key in changed if not any(key.startswith(f"variants.{name}") for name in added)]
    said = [f"{key}: {old.get(key, ABSENT)} there, {new.get(key, ABSENT)} here" for key in changed[:3]]
    return "; ".join(said) or "its models differ"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): repr(value)}


def _read(path: Path) -> dict[str, Any]:
    try:
        before = read_json(path)
        if before["schema"] == SCHEMA:
            dict(before["settled"]["variants"])
            return before
        reason = f"schema {before['schema']}, and this version knows {SCHEMA}"
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise StudyError(f"{path}: cannot be read ({reason})", f"--out {path.parent}-2")


def _cores() -> int:
    """The cores that this process may use, which a container or a scheduler may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _study_json(recipe: Recipe, data: Dataset, plan: Plan, settled: Mapping[str, Any]) -> dict[str, Any]:
    packages = ("torch", "accelerate", "datasets", "numpy")
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "schema": SCHEMA,
        "study": recipe.name,
        "reference": recipe.reference,
        "preset": recipe.preset,
        "overrides": list(recipe.overrides),
        "recipe": recipe.resolved(),
        "settled": settled,
        "precision": {run.variant: [run.training["precision"], run.precision_reason] for run in plan.runs},
        "versions": {
            "moebius": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "data": {
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "domains": list(data.domains),
            "train_rows": len(data.train),
            "validation_rows": 0 if data.validation is None else len(data.validation),
            "test_rows": len(data.test),
            "facts": data.facts,
        },
        "machine": {"device": plan.device, "workers": plan.workers, "threads": plan.threads},
        "hardware": {
            "processor": processor,
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if plan.device == "cuda" else None,
            "system": platform.platform(),
        },
    }
