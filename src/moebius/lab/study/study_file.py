"""The file `study.json`: the runs of a study, its data and versions; and whether a recipe continues the study."""

import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from moebius import __version__
from moebius.kit.commands import beside
from moebius.kit.errors import DamagedFileError, StudyError
from moebius.kit.files import read_json
from moebius.lab.data.split import Dataset
from moebius.lab.documents import StudyFile, check_form
from moebius.lab.model.resolve import list_stage_names
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.recipe.schema import Recipe
from moebius.lab.report.source import SCHEMA
from moebius.lab.study.run_spec import DEFAULT_TASK, RunSpec
from moebius.lab.study.stages import UNSETTLED, digest
from moebius.tasks._choice import as_task

# The parts of a recipe that results depend on.
SETTLING = ("data", "task", "training", "pretraining", "stages", "model", "variants", "sweep")
ABSENT = "nothing"
# What a study goes on by.
NEEDED = ("settled", "precision", "machine", "jobs", "data", "recipe")


def read_study(path: Path) -> dict[str, Any] | None:
    """The content of a `study.json`; None where there is no file.

    Raises:
        StudyError: the file is damaged, or of another version of moebius.
    """
    if not path.exists():
        return None
    fix = f"--out {beside(path.parent)}"
    try:
        study = read_json(path)
        if study["schema"] == SCHEMA:
            check_form(path, study, StudyFile, fix)
            missing = next((key for key in NEEDED if study.get(key) is None), None)
            if missing is not None:
                raise DamagedFileError(path, f"it has no {missing}", fix)
            return study
        version = study["versions"]["moebius"]
    except DamagedFileError as error:
        raise DamagedFileError(path, error.reason, fix) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StudyError(f"{path}: cannot be read ({type(error).__name__}: {error})", fix) from None
    schemas = f"its study.json has schema {study['schema']}, and this version goes on with schema {SCHEMA}"
    raise StudyError(f"{path.parent}: is a study of moebius {version} ({schemas})", fix)


def settled_hashes(
    recipe: Recipe, data: Dataset, stage_hashes: Mapping[str, str], plugins: Sequence[Plugin] = ()
) -> dict[str, Any]:
    """Hashes of all that the results depend on; variants and seeds may be added, and descriptions may change."""
    variants = {
        variant.name: digest(
            [
                dict(variant.model),
                variant.training.model_dump(mode="json", exclude=UNSETTLED),
                {name: stage_hashes[name] for name in list_stage_names(variant.model)},
                *([] if recipe.task == DEFAULT_TASK else [recipe.task]),
                *([] if variant.scale == "unit" else [{"scale": variant.scale}]),
                *([] if recipe.data.split == "fixed" else [{"split": recipe.data.split}]),
                *([] if variant.rows == "train" else [{"rows": variant.rows}]),
            ]
        )
        for variant in recipe.variants
    }
    settled: dict[str, Any] = {"data": data.fingerprint, "variants": variants}
    # Only where there are plugins: other studies keep the record that they have.
    return {**settled, "plugins": sorted(plugin.digest for plugin in plugins)} if plugins else settled


def continues(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the hashes `now` still hold all that was begun, unchanged."""
    begun = before["variants"].items()
    return before["data"] == now["data"] and all(now["variants"].get(name) == settled for name, settled in begun)


def describe_differences(
    study: Mapping[str, Any], recipe: Recipe, data: Dataset, plugins: Sequence[Plugin] = ()
) -> str:
    """The first three keys in which a recipe differs from that of a study, with their values."""
    if study["data"]["fingerprint"] != data.fingerprint:
        return "its data differ"
    old, new = (_flatten({key: values.get(key) for key in SETTLING}) for values in (study["recipe"], recipe.resolved()))
    begun = set(study["settled"]["variants"])
    added = {name for name in recipe.resolved_variants() if name not in begun}
    changed = [key for key in {**old, **new} if old.get(key, ABSENT) != new.get(key, ABSENT)]
    changed = [key for key in changed if not any(key.startswith(f"variants.{name}") for name in added)]
    texts = [f"{key}: {old.get(key, ABSENT)} there, {new.get(key, ABSENT)} here" for key in changed[:3]]
    if texts:
        return "; ".join(texts)
    # Stages depend on all plugins that are loaded.
    recorded = {record["sha256"] for record in study.get("plugins", ())}
    is_new = any(plugin.digest not in recorded for plugin in plugins)
    return "its stages were trained without some of these plugins" if is_new else "its models differ"


def _flatten(value: Any, path: str = "") -> dict[str, str]:
    """Path of each leaf of nested mappings → its text."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in _flatten(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): repr(value)}


def describe_study(
    recipe: Recipe,
    data: Dataset,
    settled: Mapping[str, Any],
    runs: Sequence[RunSpec],
    plugins: Sequence[Plugin] = (),
) -> dict[str, Any]:
    """The content of `study.json` that does not depend on how the runs share the machine.

    Arguments:
        recipe, data: of the study.
        settled: from `settled_hashes`.
        runs: stages and variants at all seeds.
        plugins: the plugin files that are loaded.
    """
    task = as_task(recipe.task)
    points = {variant.name: variant.point for variant in recipe.variants if variant.point is not None}
    return {
        "schema": SCHEMA,
        "study": recipe.name,
        "reference": recipe.reference,
        "preset": recipe.preset,
        "overrides": list(recipe.overrides),
        "recipe": recipe.resolved(),
        "task": {"kind": recipe.task["kind"], "score": task.score_name, "loss": task.loss_name},
        "settled": settled,
        **({"points": {name: asdict(point) for name, point in points.items()}} if points else {}),
        **({"plugins": [plugin.record() for plugin in plugins]} if plugins else {}),
        "precision": {
            run.variant if run.rows is None else f"stages/{run.variant}": [
                run.training["precision"],
                run.precision_reason,
            ]
            for run in runs
        },
        "versions": describe_versions(),
        "data": {"fingerprint": data.fingerprint, **describe_data(data), "facts": data.facts},
    }


def describe_data(data: Dataset) -> dict[str, Any]:
    """Names of classes, targets and domains, and the number of rows of each split."""
    return {
        "classes": list(data.classes),
        "targets": {name: list(names) for name, names in data.targets.items()},
        "domains": list(data.domains),
        "train_rows": len(data.train),
        "validation_rows": 0 if data.validation is None else len(data.validation),
        "test_rows": len(data.test),
    }


def describe_versions() -> dict[str, str]:
    """Package → version."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "datasets", "numpy")}
    return {"moebius": __version__, "python": platform.python_version(), **packages}


def describe_hardware(device: str) -> dict[str, Any]:
    """Processor, cores, GPU and system of this machine."""
    return {
        "processor": describe_processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


@functools.cache
def describe_processor() -> str:
    """Name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), None)
    return name or platform.processor() or platform.machine()


def count_cores() -> int:
    """The cores that this process may use, which a container or a scheduler may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
