"""Which runs of a study train together as a cohort, and in which order jobs begin."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

from moebius.core.loss_needs import loss_needs
from moebius.kit.errors import StudyError
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import build_model
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.cohort_obstacle import CohortTrial, settings_obstacle
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

CohortMode = Literal["auto", "never", "always"]
Job = tuple[RunSpec, ...]

# Most runs of a cohort; more are no faster on a CPU, since they no longer fit its cache.
MOST_RUNS = {"cpu": 10, "cuda": 64}
# The overhead of a step, in multiply-adds forward that take as long: of each step, and of each run in it.
# Measured with benchmarks/stacked_runs.py.
STEP_OVERHEAD, RUN_OVERHEAD = 15_000_000, 2_500_000


def form_cohorts(
    runs: Sequence[RunSpec],
    data: Dataset,
    device: str,
    workers: int,
    mode: CohortMode,
    rows_by_seed: bool = False,
) -> tuple[list[Job], dict[str, str]]:
    """The cohorts of these runs, longest first; and variant → why its runs train alone.

    Runs form a cohort whose models are described alike, whose pixels have one scale, and whose training differs in gate
    losses, the weight of the cross-entropy and the seed alone. Size and number of cohorts depend on shapes and
    never on measured time.

    Arguments:
        runs: variants at seeds, none of them begun.
        data: of the study.
        device: "cpu" or "cuda".
        workers: how many jobs run at a time: all workers should have work.
        mode: "auto" for cohorts where they are faster, "never", or "always" where several runs have equal models.
        rows_by_seed: whether each seed has rows of its own: then runs of one seed alone form cohorts.

    Raises:
        StudyError: "always", and runs with equal models cannot train as a cohort.
    """
    if mode == "never":
        return [], dict.fromkeys((run.variant for run in runs), "trains alone, since cohorts are switched off")
    reasons: dict[str, str] = {}
    groups: list[Job] = []
    trials: dict[str, CohortTrial] = {}  # by the description of the model
    for group in _group_by_model(runs, rows_by_seed):
        obstacle = _group_obstacle(group, data, device, mode, trials)
        if obstacle is None:
            groups.append(group)
        else:
            reasons |= dict.fromkeys((run.variant for run in group), obstacle)
    grouped = {run.name for group in groups for run in group}
    alone = [(run,) for run in runs if run.name not in grouped]
    steps = {run.name: run.training["epochs"] * math.ceil(len(data.train) / run.training["batch_size"]) for run in runs}

    def duration(job: Job) -> float:
        """The estimated time of a job, in multiply-adds."""
        first = job[0]
        trial = None if first.stages else trials.get(_describe_model(first))
        work = (STEP_OVERHEAD if trial is None else trial.multiply_adds) * first.training["batch_size"]
        return float(steps[first.name] * (STEP_OVERHEAD + len(job) * (RUN_OVERHEAD + work)))

    def split_groups(pieces: int) -> list[Job]:
        most = MOST_RUNS[device]
        jobs = [piece for group in groups for piece in _split(group, max(pieces, math.ceil(len(group) / most)))]
        return sorted(jobs, key=duration, reverse=True)

    schedules = [split_groups(pieces) for pieces in range(1, (workers if device == "cpu" else 1) + 1)]
    jobs = min(schedules, key=lambda jobs: _makespan([duration(job) for job in (*jobs, *alone)], workers))
    return [job for job in jobs if len(job) > 1], reasons


def _group_by_model(runs: Sequence[RunSpec], rows_by_seed: bool) -> list[Job]:
    groups: dict[str, list[RunSpec]] = {}
    for run in runs:
        training = {name: value for name, value in run.training.items() if name not in ("losses", "cross_entropy")}
        losses = Settings.model_validate(run.training).losses
        compares = any(loss_needs(loss.function).expert_losses for loss in losses)
        rows = [run.seed if rows_by_seed else None, run.trained]
        key = run.name if run.stages else json.dumps([run.model, training, compares, run.scale, rows], sort_keys=True)
        groups.setdefault(key, []).append(run)
    return [tuple(group) for group in groups.values()]


def _describe_model(run: RunSpec) -> str:
    return json.dumps([run.model, run.scale], sort_keys=True)


def _group_obstacle(
    group: Job, data: Dataset, device: str, mode: CohortMode, trials: dict[str, CohortTrial]
) -> str | None:
    """Why a group does not train as a cohort; None where it does. Adds the trial of the group's model to `trials`."""
    first = group[0]
    if first.stages:
        return "uses stages"
    if first.selects is not None:
        return "is trained on rows of its own"
    if "layers" in first.model:
        return "is no single mixture"
    description = _describe_model(first)
    if description not in trials:
        rows = data.with_scale(first.scale)
        trials[description] = CohortTrial(lambda: cast(Mixture, build_model(first.model, data.facts)), rows)
    if len(group) == 1:
        return "is the only run with its model"
    trial, settings = trials[description], Settings.model_validate(first.training)
    slowness = trial.slowness(settings.batch_size, device) if mode == "auto" else None
    obstacle = slowness or settings_obstacle(settings) or trial.obstacle
    if obstacle is not None and mode == "always":
        raise StudyError(f"--cohorts always: {first.variant} {obstacle}", "--cohorts auto")
    return obstacle


def _split(group: Job, pieces: int) -> list[Job]:
    """The group in so many pieces of about one size, or in as many as it has runs."""
    pieces = min(pieces, len(group))
    ends = [len(group) * number // pieces for number in range(pieces + 1)]
    return [group[begin:end] for begin, end in pairwise(ends)]


def _makespan(durations: Sequence[float], workers: int) -> float:
    """When the last job ends if the longest begin first."""
    busy_until = [0.0] * workers
    for duration in sorted(durations, reverse=True):
        busy_until[busy_until.index(min(busy_until))] += duration
    return max(busy_until)


def describe_cohorts(cohorts: Sequence[Job], runs: Sequence[RunSpec], reasons: Mapping[str, str]) -> str:
    """The number and sizes of the cohorts of these runs, or why there is none."""
    if cohorts:
        names = {run.name for run in runs}
        cohorts = [cohort for cohort in cohorts if any(run.name in names for run in cohort)]
        sizes = sorted({len(cohort) for cohort in cohorts})
        text = f"{len(cohorts)} cohort{'s' * (len(cohorts) > 1)} of {' or '.join(map(str, sizes))} runs"
        alone = len(runs) - sum(len(cohort) for cohort in cohorts)
        return f"{text}, {alone} alone" if alone > 0 else text
    reason = next((f"{variant} {why}" for variant, why in reasons.items()), "there is a process for each run")
    return f"no cohorts: {reason}"
