"""One cohort: train its runs together and leave the files of each."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import build_model
from moebius.lab.study.cohorts import Job
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.train_run import ORPHAN_SECONDS, remove_leftovers, result_path, write_run
from moebius.lab.training.cohort import CohortMember, CohortTrainer
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings

# The name that the checkpoint had when a cohort was called a stack.
OLD_NAME = "stack.safetensors"


def checkpoint_path(out: Path, job: Job) -> Path:
    """The file with the state of all runs of a cohort: in the first one's folder, until all are finished."""
    return job[0].place(out) / "state" / "cohort.safetensors"


def train_cohort(
    job: Job,
    data: Dataset,
    out: Path,
    device: str,
    listen: Callable[[RunSpec, Event], None],
    on_finish: Callable[[RunSpec], None],
    on_failure: Callable[[RunSpec, MoebiusError], None],
) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the files that each run has alone.

    A finished run trains again together with an unfinished one, so that this one gets the same bits; its events are
    not sent, and its files stay.

    Arguments:
        job: the runs.
        data: of the study.
        out: its folder.
        device: "cpu" or "cuda".
        listen: receives a run and its event.
        on_finish, on_failure: one of them is called for each run that was not finished before.
    """
    with ExitStack() as locks:
        for run in job:
            locks.enter_context(folder_lock(run.place(out) / "state", wait=ORPHAN_SECONDS))
        unfinished = {number for number, run in enumerate(job) if not result_path(out, run).exists()}
        if not unfinished:
            return
        for run in job:
            remove_leftovers(run.place(out))
            remove_leftovers(run.place(out) / "state")

        def build_member(number: int, run: RunSpec) -> CohortMember:
            def send(event: Event) -> None:
                if number in unfinished:
                    listen(run, event)

            def build() -> Any:
                return build_model(run.model, data.facts, stacked=False)

            settings = Settings.from_plain(run.training)
            return CohortMember(build, settings, run.draws, run.place(out), send)

        members = [build_member(number, run) for number, run in enumerate(job)]
        path = checkpoint_path(out, job)
        if (old_path := path.with_name(OLD_NAME)).exists() and not path.exists():
            old_path.rename(path)
        trainer = CohortTrainer(members, data, path, device, lambda number, error: on_failure(job[number], error))
        for number, trained in trainer.train(unfinished):
            write_run(job[number], data, out, trained, stacked=False)
            on_finish(job[number])
        if all(result_path(out, run).exists() for run in job):
            path.unlink(missing_ok=True)
