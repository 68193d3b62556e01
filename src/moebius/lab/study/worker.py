"""A process that does jobs: those of the folders that a user names, or of the folders that a pool sends it."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from rich.console import Console

from moebius.lab.study.display import Display
from moebius.lab.study.job import run_job
from moebius.lab.study.job_messages import JobMessages
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.partners import check_not_launched


def do_jobs(folders: Sequence[Path], console: Console) -> None:
    """Do the jobs of these folders in turn; one that fails does not stop the others.

    Arguments:
        folders: of the jobs; each holds a `job.json`.
        console: for the progress.

    Raises:
        StudyError: a folder holds no job; none has begun then.
        TrainingError: some runs could not be finished; all others are.
    """
    check_not_launched("moebius job FOLDER    # of a study that was planned with --nproc")
    jobs = [JobSpec.read(folder) for folder in folders]
    runs = [run for job in jobs for run in job.runs]
    done = sum(run.is_finished for run in runs)
    with Display(console, len(runs), done, [job.runs for job in jobs if len(job.runs) > 1]) as display:
        for job in jobs:
            if all(run.is_finished for run in job.runs):
                console.print(f"{job.folder}: is finished", markup=False, highlight=False, soft_wrap=True)
            else:
                job.prepare_process()
                run_job(job.runs, job.load_data, job.device, display, processes=job.processes, mixed=job.mixed)
    display.raise_failures()


def serve_jobs() -> NoReturn:
    """Do jobs for the parent process, which sends their folders line by line to this process's standard input.

    The events of a job go to standard output, one JSON object a line: `run` is the run's number in the job, and beside
    it stands `event`, `finished` or `error`; a job ends with `{"done": true}`. What else the process prints goes to
    standard error. The process ends with its standard input, at once: the parent alone holds its other end open.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folders: SimpleQueue[Path] = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_receive_folders, args=(folders, busy), daemon=True).start()
    while True:
        job = JobSpec.read(folders.get())
        busy.set()
        job.prepare_process()
        messages = JobMessages(lines, job.runs)
        run_job(job.runs, job.load_data, job.device, messages, processes=job.processes, mixed=job.mixed)
        busy.clear()
        messages.send(done=True)


def _receive_folders(folders: SimpleQueue[Path], busy: threading.Event) -> None:
    # Unbuffered: a thread that waits with a buffer's lock cannot be stopped when the interpreter ends.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            folders.put(Path(os.fsdecode(line.rstrip(b"\r\n"))))
    os._exit(busy.is_set())
