"""What a study will run, decided once and kept in `study.json`: on one machine a resumed run has the same bits."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from moebius import __version__
from moebius.kit.errors import StudyError
from moebius.kit.files import read_json, write_json
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_mixture, stage_names
from moebius.lab.recipe.plugins import Plugin, check_plugins
from moebius.lab.recipe.schema import Recipe, Variant
from moebius.lab.study.cohorts import Job, Stacking, form_cohorts
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import UNSETTLED, all_stage_names, digest, plan_stages
from moebius.lab.training.precision import choose_precision

SCHEMA = 1
# The parts of a recipe that results depend on.
SETTLING = ("data", "training", "pretraining", "stages", "model", "variants")
ABSENT = "nothing"
# Most processes that share a GPU.
SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class Plan:
    """All runs of a study and how they share the machine.

    Arguments:
        stages: what is trained before the variants that use it.
        runs: seed by seed, so that every variant has a first result early.
        data: what `moebius.lab.data.load_sets` is given.
        facts: of the data, for `build_mixture`.
        device: "cpu" or "cuda".
        workers: how many processes train at a time.
        threads: for the products of each. Part of the plan because sums in another order have other bits.
        stacks: runs that train as one, those that take longest first; part of the plan for the same reason.
        reasons: variant → why it is in no stack, as the end of a sentence.
        plugins: files that every process runs before it builds anything.
    """

    stages: tuple[RunSpec, ...]
    runs: tuple[RunSpec, ...]
    data: Mapping[str, Any]
    facts: Mapping[str, int]
    device: str
    workers: int
    threads: int
    stacks: tuple[Job, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()

    def jobs(self, runs: Sequence[RunSpec]) -> list[Job]:
        """What is done at one go so that these runs get finished: their stacks, whole, then each of the others."""
        asked = {run.name for run in runs}
        stacked = {run.name for stack in self.stacks for run in stack}
        stacks = [stack for stack in self.stacks if any(run.name in asked for run in stack)]
        return [*stacks, *((run,) for run in runs if run.name not in stacked)]

    @property
    def everything(self) -> list[RunSpec]:
        """Stages and variants, seed by seed, each after what it needs."""
        seeds = range(max((run.seed for run in self.runs), default=-1) + 1)
        return [one for seed in seeds for one in (*self.stages, *self.runs) if one.seed == seed]


def make_plan(
    recipe: Recipe,
    data: Dataset,
    device: str,
    workers: int | None,
    out: Path,
    stages_dir: Path | None = None,
    stacking: Stacking = "auto",
    plugins: Sequence[Plugin] = (),
) -> Plan:
    """Plan the study, or take up the plan that the folder holds.

    Arguments:
        recipe, data: what to train, on what.
        device: "cpu" or "cuda".
        workers: how many runs to train at a time; None to decide.
        out: the study's folder.
        stages_dir: where finished stages are kept, for other studies too; None for `stages` in the study's folder.
        stacking: of the runs that the folder's plan does not hold yet.
        plugins: the plugin files that are loaded; results depend on their content.

    Raises:
        StudyError: the folder holds a study of another recipe, other data or other plugins, or runs that are to be
            stacked cannot be.
        ArgumentError: a stage names classes that the data do not have.
    """
    specs, hashes = plan_stages(recipe, data, plugins)
    kept = (stages_dir or out / "stages").absolute()
    settled = _settled(recipe, data, hashes, plugins)
    path = out / "study.json"
    before = _read(path) if path.exists() else None
    if before is not None:
        check_plugins(out, before.get("plugins", ()), plugins)
    if before is not None and not _goes_on(before["settled"], settled):
        why = _differences(before, recipe, data, {plugin.digest for plugin in plugins})
        fix = f"--out {out}-2" + (f" --stages {kept}    # keeps the stages that are the same" if specs else "")
        raise StudyError(f"{out}: holds another study ({why})", fix)
    if before is None:
        cores = _cores()
        count = max(len(recipe.variants), len(recipe.stages)) * recipe.seeds
        together = workers or (1 if device == "cuda" else min(cores, count))
        threads = max(1, cores // together)
    else:
        threads = before["machine"]["threads"]
        together = workers or before["machine"]["workers"]
        device = before["machine"]["device"]
        if device == "cuda" and not torch.cuda.is_available():
            rule = "was begun on a GPU, which other bits come from than from a CPU, and torch finds none here"
            raise StudyError(f"{out}: {rule}", f"--out {out}-2")
    decided = {} if before is None else before["precision"]
    chosen: dict[str, tuple[dict[str, Any], str]] = {}
    for part in (*recipe.stages, *recipe.variants):
        key = part.name if isinstance(part, Variant) else f"stages/{part.name}"
        training = part.training.model_dump(mode="json")
        if key in decided:
            precision, reason = decided[key]
        else:
            facts = data.facts if isinstance(part, Variant) else specs[part.name]["facts"]
            model = build_mixture(part.model, facts, StageNetworks(specs))
            precision, reason = choose_precision(training["precision"], model, facts, torch.device(device))
        chosen[key] = ({**training, "precision": precision}, reason)
    planned = [] if before is None else _planned(before)
    named = [name for job in planned for name in job]
    stages, runs = [], []
    # A stack is trained whole, also for fewer seeds than it was planned for.
    for seed in range(max([recipe.seeds, *(1 + int(name.rpartition("-")[2]) for name in named)])):
        folders = {name: kept / f"{name}-{hashes[name]}" / f"seed-{seed}" for name in specs}
        for part in (*recipe.stages, *recipe.variants):
            needs = all_stage_names(part.model, specs)
            given = ({name: specs[name] for name in needs}, {name: folders[name] for name in needs})
            if isinstance(part, Variant):
                runs.append(RunSpec(part.name, seed, part.model, *chosen[part.name], *given))
            else:
                rows, folder = part.rows, folders[part.name]
                training, reason = chosen[f"stages/{part.name}"]
                stages.append(RunSpec(part.name, seed, part.model, training, reason, *given, rows, folder))
    by_name = {run.name: run for run in runs}
    stages, runs = ([one for one in every if one.seed < recipe.seeds] for every in (stages, runs))
    stacks = [tuple(by_name[name] for name in job) for job in planned if len(job) > 1]
    new = [run for run in runs if run.name not in named]
    added, reasons = form_cohorts(new, data, device, together, stacking)
    if device == "cuda" and before is None and workers is None and added and sum(map(len, added)) == len(new):
        # Small networks wait for their launches, which several processes make side by side.
        together = min(len(added), SIDE_BY_SIDE, _cores())
        threads = max(1, _cores() // together)
    reasons = {**({} if before is None else before.get("alone", {})), **reasons}
    spec = recipe.data.model_dump(mode="json")
    shared = (spec, data.facts, device, together, threads)
    plan = Plan(tuple(stages), tuple(runs), *shared, (*stacks, *added), reasons, tuple(plugins))
    write_json(path, {**_study_json(recipe, data, plan, settled), "jobs": [*planned, *_names(plan.jobs(new))]})
    return plan


def _names(jobs: Sequence[Job]) -> list[list[str]]:
    return [[run.name for run in job] for job in jobs]


def _planned(before: Mapping[str, Any]) -> list[list[str]]:
    """The jobs that a study was begun with; one that is from before there were stacks has a job for each run."""
    if "jobs" in before:
        return before["jobs"]
    return [
        [f"{name}/seed-{seed}"] for seed in range(before["recipe"]["seeds"]) for name in before["settled"]["variants"]
    ]


def _settled(recipe: Recipe, data: Dataset, hashes: Mapping[str, str], plugins: Sequence[Plugin]) -> dict[str, Any]:
    """Hashes of all that the results depend on; variants and seeds may be added, and words may change."""
    variants = {
        variant.name: digest(
            [
                dict(variant.model),
                variant.training.model_dump(mode="json", exclude=UNSETTLED),
                {name: hashes[name] for name in stage_names(variant.model)},
            ]
        )
        for variant in recipe.variants
    }
    settled: dict[str, Any] = {"data": data.fingerprint, "variants": variants}
    # Only where there are plugins: other studies keep the record that they have.
    return {**settled, "plugins": sorted(plugin.digest for plugin in plugins)} if plugins else settled


def _goes_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all that was begun is still asked for, unchanged."""
    begun = before["variants"].items()
    return before["data"] == now["data"] and all(now["variants"].get(name) == settled for name, settled in begun)


def _differences(before: Mapping[str, Any], recipe: Recipe, data: Dataset, digests: set[str]) -> str:
    if before["data"]["fingerprint"] != data.fingerprint:
        return "its data differ"
    old, new = (_flat({key: whole[key] for key in SETTLING}) for whole in (before["recipe"], recipe.resolved()))
    begun = set(before["settled"]["variants"])
    added = {name for name in recipe.resolved_variants() if name not in begun}
    changed = [key for key in {**old, **new} if old.get(key, ABSENT) != new.get(key, ABSENT)]
    changed = [key for key in changed if not any(key.startswith(f"variants.{name}") for name in added)]
    said = [f"{key}: {old.get(key, ABSENT)} there, {new.get(key, ABSENT)} here" for key in changed[:3]]
    if said:
        return "; ".join(said)
    # Stages depend on all plugins that are loaded.
    recorded = {record["sha256"] for record in before.get("plugins", ())}
    return "its stages were trained without some of these plugins" if digests - recorded else "its models differ"


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
        **({"plugins": [plugin.record() for plugin in plan.plugins]} if plan.plugins else {}),
        "precision": {
            run.variant if run.rows is None else f"stages/{run.variant}": [
                run.training["precision"],
                run.precision_reason,
            ]
            for run in (*plan.stages, *plan.runs)
        },
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
        "alone": dict(plan.reasons),
        "machine": {"device": plan.device, "workers": plan.workers, "threads": plan.threads},
        "hardware": {
            "processor": processor,
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if plan.device == "cuda" else None,
            "system": platform.platform(),
        },
    }
