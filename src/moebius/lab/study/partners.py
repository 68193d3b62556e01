"""Processes that train a job together with this one: started by it, or by `torchrun` beside it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import count as numbers_from
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import distributed as dist

from moebius.kit.errors import LostProcessError, StudyError
from moebius.lab.training.process_group import launched_processes, meeting, process_group

# -P: a file in the working directory does not stand in for a module.
COMMAND = (sys.executable, "-P", "-c", "from moebius.lab.study.partner import main; main()")
# Seconds in which a partner ends that has nothing left to do.
END_SECONDS = 10.0
READY = b"ready\n"

# Joins the process group inside its block; its argument is the device.
Join = Callable[[str], AbstractContextManager[None]]
# Of the jobs that launched processes share; all of them count alike.
job_numbers = numbers_from()


@contextmanager
def partners(folder: Path, count: int) -> Iterator[Join]:
    """A block in which `count` − 1 other processes share the job of a folder; they end with it, however it ends.

    Arguments:
        folder: of the job; it holds the `job.json`.
        count: of processes, this one among them.

    Returns:
        What joins them, called once, when this process is ready for the first step.
    """
    if count == 1:
        yield lambda device: nullcontext()
    elif launched_processes() > 1:
        number = next(job_numbers)
        store, rank, _ = meeting()
        store.set(job_key(number), os.fspath(folder.absolute()))
        yield lambda device: launched_join(device, number, rank, count)
    else:
        with TemporaryDirectory() as temporary, ExitStack() as stack:
            place = Path(temporary)
            started = [stack.enter_context(_partner(folder, rank, count, place)) for rank in range(1, count)]

            @contextmanager
            def join(device: str) -> Iterator[None]:
                for process in started:
                    assert process.stdout is not None
                    if process.stdout.readline() != READY:
                        rule = f"a process that was to train {folder} together with this one has ended with code"
                        raise LostProcessError(f"{rule} {process.wait()}", "read what it wrote above, or --nproc 1")
                with local_join(device, place, 0, count):
                    yield

            yield join


def local_join(device: str, place: Path, rank: int, count: int) -> AbstractContextManager[None]:
    """Join the processes of this machine that meet in a folder.

    Arguments:
        device: "cpu" or "cuda".
        place: the folder.
        rank, count: number of this process, and how many there are.
    """
    store = dist.FileStore(os.fspath(place / "meeting"), count)  # type: ignore[attr-defined]
    return process_group(device, store, rank, count, rank)


def launched_join(device: str, number: int, rank: int, count: int) -> AbstractContextManager[None]:
    """Join the processes that a launcher has started, for one job.

    Arguments:
        device: "cpu" or "cuda".
        number: of the job among those of these processes.
        rank, count: number of this process, and how many there are.
    """
    store = dist.PrefixStore(f"moebius/jobs/{number}", meeting()[0])  # type: ignore[attr-defined]
    return process_group(device, store, rank, count, int(os.environ.get("LOCAL_RANK", rank)))


def job_key(number: int) -> str:
    """The key under which launched processes find the folder of a job, by its number among all that they share."""
    return f"moebius/job/{number}"


def check_not_launched(fix: str) -> None:
    """Refuse that each of the processes that a launcher has started does the same.

    Arguments:
        fix: the command to type instead.
    """
    count = launched_processes()
    if count > 1:
        raise StudyError(f"a launcher (torchrun) has started {count} processes, which would all do the same", fix)


@contextmanager
def _partner(folder: Path, rank: int, count: int, place: Path) -> Iterator[subprocess.Popen]:
    """A process that shares the job until its standard input ends, which this process alone holds open."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    words = (str(folder.absolute()), str(rank), str(count), str(place))
    process = subprocess.Popen(
        (*COMMAND, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
