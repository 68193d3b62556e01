"""Which runs of a study train as one, and in which order jobs begin."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from moebius.kit.errors import StudyError
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import build_mixture
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.cohort_obstacle import RowWork, cohort_obstacle
from moebius.lab.training.objective import compares_experts
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

Stacking = Literal["auto", "never", "always"]
Job = tuple[RunSpec, ...]

# Most runs of a stack; more bring nothing on a CPU, whose cache they leave.
MOST = {"cpu": 10, "cuda": 64}
# What a step costs beside its products, in multiply-adds forward that take as long: once, and for each run.
# Measured with benchmarks/stacked_runs.py.
ONCE, EACH = 15_000_000, 2_500_000


def form_cohorts(
    runs: Sequence[RunSpec], data: Dataset, device: str, workers: int, stacking: Stacking
) -> tuple[list[Job], dict[str, str]]:
    """The stacks that these runs make, those that take longest first; and variant → why it is in none.

    Runs make a stack whose models are described alike, and whose training is but for gate losses, the weight of the
    cross-entropy and the seed. Which and how many depends on shapes and never on measured time.

    Arguments:
        runs: variants at seeds, none of them begun.
        data: of the study.
        device: "cpu" or "cuda".
        workers: how many jobs go on at a time: all of them are to have work.
        stacking: "auto" for what is faster, "never", or "always" for all that have company.

    Raises:
        StudyError: "always", and runs that have company cannot be stacked.
    """
    if stacking == "never":
        return [], dict.fromkeys((run.variant for run in runs), "is not to be stacked")
    reasons: dict[str, str] = {}
    groups: list[Job] = []
    works: dict[str, int] = {}
    for group in _groups(runs):
        why = _why_not(group, data, device, stacking, works)
        if why is None:
            groups.append(group)
        else:
            reasons |= dict.fromkeys((run.variant for run in group), why)
    together = {run.name for group in groups for run in group}
    alone = [(run,) for run in runs if run.name not in together]
    steps = {run.name: run.training["epochs"] * math.ceil(len(data.train) / run.training["batch_size"]) for run in runs}

    def length(job: Job) -> float:
        """How long a job takes, in a unit of its own."""
        first = job[0]
        work = works.get(first.name, ONCE) * first.training["batch_size"]
        return float(steps[first.name] * (ONCE + len(job) * (EACH + work)))

    def dealt(pieces: int) -> list[Job]:
        jobs = [piece for group in groups for piece in _cut(group, max(pieces, math.ceil(len(group) / MOST[device])))]
        return sorted(jobs, key=length, reverse=True)

    plans = [dealt(pieces) for pieces in range(1, (workers if device == "cpu" else 1) + 1)]
    jobs = min(plans, key=lambda jobs: _makespan([length(job) for job in (*jobs, *alone)], workers))
    return [job for job in jobs if len(job) > 1], reasons


def _groups(runs: Sequence[RunSpec]) -> list[Job]:
    found: dict[str, list[RunSpec]] = {}
    for run in runs:
        training = {name: value for name, value in run.training.items() if name not in ("losses", "cross_entropy")}
        compares = any(compares_experts(loss.function) for loss in Settings.from_plain(run.training).losses)
        key = run.name if run.stages else json.dumps([run.model, training, compares], sort_keys=True)
        found.setdefault(key, []).append(run)
    return [tuple(group) for group in found.values()]


def _why_not(group: Job, data: Dataset, device: str, stacking: Stacking, works: dict[str, int]) -> str | None:
    first = group[0]
    if first.stages:
        return "uses stages"

    def build() -> Mixture:
        return build_mixture(first.model, data.facts)

    work = RowWork.of(build, data)
    works |= dict.fromkeys((run.name for run in group), work.multiply_adds)
    if len(group) == 1:
        return "has no run beside it with a model like its own"
    settings = Settings.from_plain(first.training)
    if stacking == "always":
        why = cohort_obstacle(build, settings, data)
        if why is not None:
            raise StudyError(f"--stack always: {first.variant} {why}", "--stack auto")
        return None
    return work.why_alone(settings.batch_size, device) or cohort_obstacle(build, settings, data)


def _cut(group: Job, pieces: int) -> list[Job]:
    """The group in so many pieces of about one size, or in as many as it has runs."""
    pieces = min(pieces, len(group))
    ends = [len(group) * number // pieces for number in range(pieces + 1)]
    return [group[begin:end] for begin, end in pairwise(ends)]


def _makespan(lengths: Sequence[float], workers: int) -> float:
    """When the last job ends if the longest begin first."""
    busy = [0.0] * workers
    for one in sorted(lengths, reverse=True):
        busy[busy.index(min(busy))] += one
    return max(busy)


def describe_cohorts(stacks: Sequence[Job], runs: Sequence[RunSpec], reasons: Mapping[str, str]) -> str:
    """The stacks in a few words, or why there is none."""
    if stacks:
        names = {run.name for run in runs}
        stacks = [stack for stack in stacks if any(run.name in names for run in stack)]
        sizes = sorted({len(stack) for stack in stacks})
        many = f"{len(stacks)} stack{'s' * (len(stacks) > 1)} of {' or '.join(map(str, sizes))}"
        alone = len(runs) - sum(len(stack) for stack in stacks)
        return f"{many}, {alone} alone" if alone > 0 else many
    why = next((f"{variant} {why}" for variant, why in reasons.items()), "there is a process for each run")
    return f"no stacks: {why}"
