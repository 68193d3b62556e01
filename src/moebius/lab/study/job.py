"""One job: train a run, a stage or a cohort in its folders and leave the files of each run."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from moebius.kit.errors import MoebiusError, StudyError, TrainingError
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.study.cohorts import Job
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.listener import Listener
from moebius.lab.study.run_files import read_error, remove_error, remove_leftovers, write_error, write_run
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import digest
from moebius.lab.training.checkpoint import restore_weights
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_parts import fit_parts
from moebius.lab.training.loop import Loop
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings
from moebius.tasks._choice import as_task

# Seconds to wait for the lock of a worker of a killed study, which ends as soon as it notices that.
ORPHAN_SECONDS = 10.0


def run_job(
    job: Job,
    load: Callable[[], Dataset],
    device: str,
    listener: Listener,
    wait: float | int = ORPHAN_SECONDS,
) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the files that each run has alone.

    A finished run of a cohort trains again together with an unfinished one, so that this one gets the same bits; its
    events are not sent, and its files stay. The error of a run that fails is also left in its folder.

    Arguments:
        job: one run, or the runs of a cohort.
        load: returns the study's data; called when the job has locked its folders and can begin.
        device: "cpu" or "cuda".
        listener: hears of each run that was not finished before.
        wait: seconds to wait for the lock of another process that is at work on the job.
    """
    unfinished = {run.name: run for run in job if not run.is_finished}

    def finish(run: RunSpec) -> None:
        if unfinished.pop(run.name, None):
            listener.finish(run)

    def fail(run: RunSpec, error: MoebiusError) -> None:
        if unfinished.pop(run.name, None):
            write_error(run, error)
            listener.fail(run, error)

    with ExitStack() as locks:
        try:
            for run in job if unfinished else ():
                locks.enter_context(folder_lock(run.folder / "state", wait))
        except StudyError as error:  # left in no folder: another process may be at work on it
            for run in unfinished.values():
                listener.fail(run, error)
            return
        try:
            if not all(run.is_finished for run in unfinished.values()):
                _train_job(job, load, device, listener.show, finish, fail)
        except MoebiusError as error:
            for run in list(unfinished.values()):
                fail(run, error)
    for run in list(unfinished.values()):
        finish(run)  # another process has finished it


def _train_job(
    job: Job,
    load: Callable[[], Dataset],
    device: str,
    show: Callable[[RunSpec, Event], None],
    finish: Callable[[RunSpec], None],
    fail: Callable[[RunSpec, MoebiusError], None],
) -> None:
    first = job[0]
    unfinished = {number for number, run in enumerate(job) if not run.is_finished}
    for number, run in enumerate(job):
        remove_leftovers(run.folder)
        remove_leftovers(run.folder / "state")
        if number in unfinished:
            remove_error(run)
            _check_stages(run)
    data = load().with_scale(first.scale)
    rows = data if first.selects is None else select_rows(data, **first.selects)
    stages = [_stage_networks(run) for run in job]

    def build_member(number: int, run: RunSpec) -> Member:
        def build() -> nn.Module:
            model = build_model(run.model, rows.facts, stages[number])
            fit_parts(model, rows.train)
            return model

        def send(event: Event) -> None:
            if number in unfinished:
                show(run, event)

        return Member(build, Settings.model_validate(run.training), run.draws, run.folder, send)

    def store(part: nn.Module, split: str) -> Path | None:
        return _outputs_path(first, stages[0], part, split)

    members = [build_member(number, run) for number, run in enumerate(job)]
    path = checkpoint_path(job)

    def fail_member(number: int, error: TrainingError) -> None:
        fail(job[number], error)

    loop = Loop(members, rows, path, device, fail_member, store, as_task(first.task))
    for number, trained in loop.train(unfinished):
        write_run(job[number], rows, trained, stages[number].sources)
        finish(job[number])
    if len(job) > 1 and all(run.is_finished for run in job):
        # A run whose folder is removed later has to be trained again, with what its folder held.
        path.unlink(missing_ok=True)


def checkpoint_path(job: Job) -> Path:
    """The file with the state of all runs of a job, in the first one's folder; of a cohort, until all are finished."""
    return job[0].folder / "state" / "checkpoint.safetensors"


def _check_stages(run: RunSpec) -> None:
    for name, folder in run.folders.items():
        if (folder / "result.json").exists():
            continue
        stage, failure = f"stage {name}/seed-{run.seed}", read_error(folder)
        if failure is not None:
            raise TrainingError(f"not begun: {stage} failed", failure["fix"])
        raise StudyError(f"not begun: {stage} is not finished", f"moebius job {shlex.quote(str(folder))}")


def _stage_networks(run: RunSpec) -> StageNetworks:
    def load_weights(name: str, mixture: nn.Module) -> None:
        restore_weights(run.folders[name] / "model.safetensors", mixture)

    return StageNetworks(run.stages, load_weights, run.labels)


def _outputs_path(run: RunSpec, stages: StageNetworks, part: nn.Module, split: str) -> Path | None:
    """The file of a stage part's outputs for a split: in the stage's folder, for all models that use the part."""
    stage = stages.sources.get(part)
    if stage is None:
        return None
    # Which part of the stage it is, and with which options: two that differ may have equal texts.
    use = next(use for use, adapter in stages.adapters.items() if adapter is part)
    key = digest([use, str(part), split, run.training["precision"]])
    return run.folders[stage] / "outputs" / f"{key}.safetensors"
