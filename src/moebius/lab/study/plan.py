"""The runs of a study, decided once and kept in `study.json`: on one machine a resumed run has the same bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moebius.kit.commands import beside
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import write_json
from moebius.lab.data.folds import fold_count, fold_names
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.recipe.plugins import Plugin, check_plugins
from moebius.lab.recipe.schema import Recipe, Variant
from moebius.lab.study.cohorts import CohortMode, Job, form_cohorts
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import list_all_stage_names, plan_stages
from moebius.lab.study.study_file import (
    continues,
    count_cores,
    describe_differences,
    describe_hardware,
    describe_study,
    read_study,
    settled_hashes,
)
from moebius.lab.training.precision import choose_precision
from moebius.lab.training.settings import Settings
from moebius.lab.training.shared_start import check_count

# Most processes that share a GPU.
SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class Place:
    """Where the jobs of a study are done; by default on this machine.

    Arguments:
        cpus: threads of each job of a study that begins; None to decide.
        has_nodes: whether jobs may be done on other machines, which may have GPUs where this one has none.
        text: names the place.
    """

    cpus: int | None = None
    has_nodes: bool = False
    text: str = ""


HERE = Place()


@dataclass(frozen=True)
class Plan:
    """All runs of a study and how they share the machine.

    Arguments:
        stages: runs that train before the variants that use them.
        runs: variants, seed by seed, so that every variant has a first result early.
        data: arguments of `moebius.lab.data.load_sets`.
        data_dir: folder with local copies of the data sets, or None.
        fingerprint: of the data.
        device: "cpu" or "cuda".
        workers: how many processes train at a time.
        threads: for the products of each process. Part of the plan because sums in another order have other bits.
        cohorts: runs that train together, longest first; part of the plan for the same reason.
        reasons: variant → why its runs train alone, as the end of a sentence.
        plugins: files that every process runs before it builds anything.
        processes: that train each run together.
        mixed: whether runs may go on with other versions than they were begun with.
    """

    stages: tuple[RunSpec, ...]
    runs: tuple[RunSpec, ...]
    data: Mapping[str, Any]
    data_dir: Path | None
    fingerprint: str
    device: str
    workers: int
    threads: int
    cohorts: tuple[Job, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    processes: int = 1
    mixed: bool = False

    def jobs(self, runs: Sequence[RunSpec]) -> list[JobSpec]:
        """The jobs that finish these runs: their cohorts, with all members, then each of the other runs."""
        shared = (self.data, self.data_dir, Path.cwd(), self.fingerprint, self.device, self.threads, self.plugins)
        shared = (*shared, self.processes, self.mixed)
        names = {run.name for run in runs}
        in_cohorts = {run.name for cohort in self.cohorts for run in cohort}
        cohorts = [cohort for cohort in self.cohorts if any(run.name in names for run in cohort)]
        alone: list[Job] = [(run,) for run in runs if run.name not in in_cohorts]
        return [JobSpec(job, *shared) for job in (*cohorts, *alone)]

    @property
    def all_runs(self) -> list[RunSpec]:
        """Stages and variants, seed by seed, each after the stages that it uses."""
        seeds = range(max((run.seed for run in self.runs), default=-1) + 1)
        return [run for seed in seeds for run in (*self.stages, *self.runs) if run.seed == seed]


def make_plan(
    recipe: Recipe,
    data: Dataset,
    device: str,
    workers: int | None,
    out: Path,
    stages_dir: Path | None = None,
    cohorts: CohortMode = "auto",
    plugins: Sequence[Plugin] = (),
    data_dir: Path | None = None,
    command: Sequence[str] = (),
    place: Place = HERE,
    nproc: int = 1,
) -> Plan:
    """Plan the study, or go on with the plan that the folder holds.

    Arguments:
        recipe, data: what to train, and on which data.
        device: "cpu" or "cuda".
        workers: how many runs to train at a time; None to decide.
        out: the study's folder.
        stages_dir: folder of finished stages, for other studies too; None for `stages` in the study's folder.
        cohorts: whether the runs that the folder's plan does not hold yet train together; see `form_cohorts`.
        plugins: the plugin files that are loaded; results depend on their content.
        data_dir: folder with local copies of the data sets, from which `data` come.
        command: the words of the command that runs the study, which `study.json` keeps.
        place: where the jobs are done.
        nproc: processes that train each run together.

    Raises:
        StudyError: the folder holds a study of another recipe or other data, or runs cannot form the demanded cohorts.
        ArgumentError: a stage names classes that the data do not have.
    """
    specs, hashes = plan_stages(recipe, data, plugins)
    stages_dir = (stages_dir or out / "stages").absolute()
    settled = settled_hashes(recipe, data, hashes, plugins)
    path = out / "study.json"
    before = read_study(path)
    if before is not None:
        check_plugins(out, before.get("plugins", ()), plugins)
    if before is not None and not continues(before["settled"], settled):
        fix = f"--out {beside(out)}"
        if specs:
            fix += f" --stages {beside(stages_dir, '')}    # keeps the stages that are the same"
        raise StudyError(f"{out}: holds another study ({describe_differences(before, recipe, data, plugins)})", fix)
    device, processes, threads = _share_machine(recipe, device, workers, place, out, before, nproc)
    trainings = _decide_precision(recipe, data, device, specs, {} if before is None else before["precision"])
    old_jobs = [] if before is None else before["jobs"]
    old_names = [name for job in old_jobs for name in job]
    # A cohort trains all its members, also for fewer seeds than it was planned for.
    seeds = max([recipe.seeds, *(1 + int(name.rpartition("-")[2]) for name in old_names)])
    stages, runs = _list_runs(recipe, specs, hashes, out, stages_dir, trainings, seeds)
    by_name = {run.name: run for run in runs}
    stages, runs = ([run for run in each if run.seed < recipe.seeds] for each in (stages, runs))
    old_cohorts = [tuple(by_name[name] for name in job) for job in old_jobs if len(job) > 1]
    new_runs = [run for run in runs if run.name not in old_names]
    new_cohorts, reasons = form_cohorts(new_runs, data, device, processes, cohorts, recipe.data.split == "by_seed")
    all_in_cohorts = new_cohorts and sum(map(len, new_cohorts)) == len(new_runs)
    if device == "cuda" and before is None and workers is None and all_in_cohorts:
        # Small networks wait for their launches, which several processes make side by side.
        processes = min(len(new_cohorts), SIDE_BY_SIDE, count_cores())
        threads = max(1, (place.cpus or count_cores() // processes) // nproc)
    reasons = {**({} if before is None else before.get("alone", {})), **reasons}
    plan = Plan(
        tuple(stages),
        tuple(runs),
        recipe.data.model_dump(mode="json"),
        data_dir,
        data.fingerprint,
        device,
        processes,
        threads,
        (*old_cohorts, *new_cohorts),
        reasons,
        tuple(plugins),
        nproc,
    )
    for run in plan.all_runs if nproc > 1 else ():
        _check_processes(run, nproc)
    content = {
        **describe_study(recipe, data, settled, (*plan.stages, *plan.runs), plugins),
        # Of a study that goes on: those that it was begun with. Each run has its own.
        **({} if before is None or not before.get("versions") else {"versions": before["versions"]}),
        "command": list(command),
        "alone": dict(reasons),
        "machine": {"device": device, "workers": processes, "threads": threads, "nproc": nproc},
        "hardware": {**describe_hardware(device), **({"jobs by": place.text} if place.has_nodes else {})},
        "jobs": [*old_jobs, *([run.name for run in job.runs] for job in plan.jobs(new_runs))],
    }
    write_json(path, content)
    return plan


def _share_machine(
    recipe: Recipe,
    device: str,
    workers: int | None,
    place: Place,
    out: Path,
    before: Mapping[str, Any] | None,
    nproc: int,
) -> tuple[str, int, int]:
    """Device, processes at a time and threads of each: as the study was begun, with another number of processes."""
    if before is None:
        cores = count_cores()
        count = max(len(recipe.variants), len(recipe.stages)) * recipe.seeds
        processes = workers or (1 if device == "cuda" else max(1, min(cores // nproc, count)))
        return device, processes, max(1, (place.cpus or cores // processes) // nproc)
    machine = before["machine"]
    if machine["device"] == "cuda" and not (place.has_nodes or torch.cuda.is_available()):
        rule = "was begun on a GPU, which gives other bits than a CPU, and torch finds none here"
        raise StudyError(f"{out}: {rule}", f"--out {beside(out)}")
    workers = workers or max(1, machine["workers"] * machine.get("nproc", 1) // nproc)
    return machine["device"], workers, machine["threads"]


def _check_processes(run: RunSpec, nproc: int) -> None:
    try:
        check_count(nproc, Settings.model_validate(run.training))
    except ArgumentError as error:
        raise error.inside(f"{run.name}: training") from None


def _decide_precision(
    recipe: Recipe,
    data: Dataset,
    device: str,
    specs: Mapping[str, Mapping[str, Any]],
    decided: Mapping[str, tuple[str, str] | list[str]],
) -> dict[str, tuple[dict[str, Any], str]]:
    """For each stage ("stages/NAME") and variant its training with the precision decided, and the reason for it.

    Arguments:
        specs: of the stages, from `plan_stages`.
        decided: precisions and reasons that the study was begun with.
    """
    trainings: dict[str, tuple[dict[str, Any], str]] = {}
    for part in (*recipe.stages, *recipe.variants):
        key = part.name if isinstance(part, Variant) else f"stages/{part.name}"
        training = part.training.model_dump(mode="json")
        if key in decided:
            precision, reason = decided[key]
        else:
            if device == "cuda" and training["precision"] == "auto" and not torch.cuda.is_available():
                rule = f"{key}: a machine without a GPU cannot tell which precision suits the GPUs of the nodes"
                raise StudyError(rule, "training.precision=bf16, or fp32")
            of_part = {"facts": data.facts, "labels": None} if isinstance(part, Variant) else specs[part.name]
            facts, labels = of_part["facts"], of_part["labels"]
            build = partial(build_model, part.model, facts, StageNetworks(specs, labels=labels))
            precision, reason = choose_precision(training["precision"], build, facts, torch.device(device))
        trainings[key] = ({**training, "precision": precision}, reason)
    return trainings


def _list_runs(
    recipe: Recipe,
    specs: Mapping[str, Mapping[str, Any]],
    hashes: Mapping[str, str],
    out: Path,
    stages_dir: Path,
    trainings: Mapping[str, tuple[dict[str, Any], str]],
    seeds: int,
) -> tuple[list[RunSpec], list[RunSpec]]:
    """The runs of all stages and of all variants, for seeds 0 … `seeds` − 1."""
    stages, runs = [], []
    for seed in range(seeds):
        folders = {name: stages_dir / f"{name}-{hashes[name]}" / f"seed-{seed}" for name in specs}
        for part in (*recipe.stages, *recipe.variants):
            trained = part.rows if isinstance(part, Variant) else part.rows["trained"]
            needed = list_all_stage_names(part.model, specs)
            folds = fold_count(trained)
            needed += [each for name in needed for each in fold_names(name, folds)] if folds else []
            inputs = ({name: specs[name] for name in needed}, {name: folders[name] for name in needed})
            if isinstance(part, Variant):
                folder, training = out / part.name / f"seed-{seed}", trainings[part.name]
                about = {"task": recipe.task, "scale": part.scale, "trained": trained}
                runs.append(RunSpec(part.name, seed, folder, part.model, *training, *inputs, **about))
            else:
                folder, training = folders[part.name], trainings[f"stages/{part.name}"]
                about = (part.rows, specs[part.name]["labels"], recipe.task, recipe.data.scale, trained)
                stages.append(RunSpec(part.name, seed, folder, part.model, *training, *inputs, *about))
    return stages, runs
