"""One job: train a run, a stage or a cohort in its folders and leave the files of each run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from moebius.core.processes import Company, company
from moebius.kit.commands import aside_ending, command
from moebius.kit.errors import MoebiusError, StudyError, TrainingError
from moebius.kit.files import write_errors
from moebius.lab.data.split import Dataset
from moebius.lab.study.cohorts import Job
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.job_members import JobMembers
from moebius.lab.study.listener import Listener
from moebius.lab.study.partners import Join, partners
from moebius.lab.study.run_files import read_error, remove_error, remove_leftovers, write_error, write_run
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.run_versions import keep_versions
from moebius.lab.training.checkpoint import path_before, remove
from moebius.lab.training.outcome import Event

# Seconds to wait for the lock of a worker of a killed study, which ends as soon as it notices that.
ORPHAN_SECONDS = 10.0


def run_job(
    job: Job,
    load: Callable[[], Dataset],
    device: str,
    listener: Listener,
    wait: float | int = ORPHAN_SECONDS,
    processes: int = 1,
    mixed: bool = False,
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
        processes: that train each run together, this one among them; for more than one the first run's folder holds
            the `job.json`.
        mixed: whether runs may go on with other versions than they were begun with.
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
                _train_job(job, load, device, listener.show, finish, fail, processes, mixed)
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
    processes: int,
    mixed: bool,
) -> None:
    first, path = job[0], checkpoint_path(job)
    is_resumed = path.exists() or path_before(path).exists()
    unfinished = {number for number, run in enumerate(job) if not run.is_finished}
    for number, run in enumerate(job):
        remove_leftovers(run.folder)
        remove_leftovers(run.folder / "state")
        if number in unfinished:
            remove_error(run)
            if run.result_path.exists():  # of a run that lacks its model or its rows, which are written before it
                with write_errors(run.result_path):
                    run.result_path.rename(f"{run.result_path}{aside_ending(run.result_path)}")
            _check_stages(run)
            keep_versions(run.name, run.folder, is_resumed, mixed)

    def send(number: int, event: Event) -> None:
        if number in unfinished:
            show(job[number], event)

    with partners(first.folder, processes) as join:
        members = JobMembers.of(job, load(), lambda run: run.folder, send)

        def fail_member(number: int, error: TrainingError) -> None:
            fail(job[number], error)

        with join(device):
            for number, trained in members.loop(path, device, fail_member).train(unfinished):
                with company(Company.ALONE):
                    write_run(job[number], members.rows, trained, members.stages[number].sources)
                finish(job[number])
    if len(job) > 1 and all(run.is_finished for run in job):
        # A run whose folder is removed later has to be trained again, with what its folder held.
        remove(path)


def share_job(job: Job, load: Callable[[], Dataset], folder: Path, device: str, join: Join) -> None:
    """Compute this process's part of a job that another process trains with `run_job`, and write nothing of it.

    Arguments:
        job, load, device: as for `run_job`.
        folder: for what a training keeps; removed by the caller.
        join: joins the process group.
    """
    # The other process has locked the folders, and finishes no run before all have joined.
    unfinished = {number for number, run in enumerate(job) if not run.is_finished}
    members = JobMembers.of(job, load(), lambda run: folder / run.variant / str(run.seed), lambda number, event: None)
    with join(device):
        for _ in members.loop(folder / "checkpoint.safetensors", device, lambda number, error: None).train(unfinished):
            pass


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
        raise StudyError(f"not begun: {stage} is not finished", command("moebius", "job", folder))
