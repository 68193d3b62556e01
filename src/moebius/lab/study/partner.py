"""A process that computes its part of jobs that another process trains."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import distributed as dist

from moebius.kit.errors import MoebiusError, StudyError
from moebius.lab.study.job import share_job
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.partners import READY, Join, job_key, job_numbers, launched_join, local_join
from moebius.lab.training.process_group import meeting

# Before the study's folder, where there is no other job; before nothing where the study has failed.
END = "end:"
# Between two looks whether there is another job: the first process may be at work on files for long.
LOOK = timedelta(minutes=1)


def lead_launched(study: Callable[[], Path]) -> Path:
    """Do a study in the first of the processes that a launcher has started; the others share its jobs.

    Arguments:
        study: does the study, and returns its folder.

    Returns:
        The study's folder, in all processes.

    Raises:
        MoebiusError: of the study, in the first process.
        StudyError: in another one, where the first has failed.
    """
    store, rank, _ = meeting()
    if rank:
        return _share_launched()
    folder: Path | str = ""
    try:
        folder = study()
        return folder
    finally:
        store.set(job_key(next(job_numbers)), f"{END}{os.fspath(folder)}")


def _share_launched() -> Path:
    """Share the jobs of the study until it ends.

    Returns:
        The study's folder.

    Raises:
        StudyError: the first process has failed.
        MoebiusError: this process cannot begin a job, such as one whose data are not on its machine.
    """
    store, rank, count = meeting()
    folder = END
    for number in job_numbers:
        folder = _wait_for_job(store, number)
        if folder.startswith(END):
            break
        with TemporaryDirectory() as temporary:
            _share(Path(folder), Path(temporary), partial(launched_join, number=number, rank=rank, count=count))
    outcome = folder.removeprefix(END)
    if not outcome:
        raise StudyError("process 0 has not finished the study", "read the error of process 0")
    return Path(outcome)


def _share(folder: Path, place: Path, join: Join) -> None:
    """Share a job; errors that come after all have joined are the first process's to tell, who has them, too."""
    has_joined = False

    def note(device: str) -> AbstractContextManager[None]:
        nonlocal has_joined
        has_joined = True
        return join(device)

    job = JobSpec.read(folder)
    job.prepare_process()
    try:
        share_job(job.runs, job.load_data, place, job.device, note)
    except MoebiusError:
        if not has_joined:
            raise


def _wait_for_job(store: dist.Store, number: int) -> str:  # type: ignore[name-defined]
    while True:
        try:
            store.wait([job_key(number)], LOOK)
        except dist.DistStoreError:  # no job in this time
            continue
        return store.get(job_key(number)).decode()


def main() -> None:
    """Share the job of a folder with the process that has started this one; end when that one ends.

    The words of the command are the folder, this process's number, how many there are, and the folder where they meet.
    """
    folder, rank, count, place = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the other process ends this one
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_input, daemon=True).start()

    def join(device: str) -> AbstractContextManager[None]:
        lines.write(READY)
        return local_join(device, place, rank, count)

    try:
        _share(folder, place / str(rank), join)
    except MoebiusError as error:
        sys.exit(f"error: {error}")


def _end_with_input() -> None:
    with open(0, "rb", buffering=0, closefd=False) as lines:
        lines.read(1)
    os._exit(1)
