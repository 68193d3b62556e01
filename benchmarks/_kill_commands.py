"""How `kill_resume.py` starts a study: as the command `moebius run`, or in a fork, which need not import moebius."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from moebius.kit.errors import MoebiusError
from moebius.lab.study.run import plan
from moebius.lab.study.study_file import count_cores
from moebius.lab.study.worker import do_jobs


class Process(Protocol):
    """A process that does a study, the first of its group."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None before it has ended."""
        ...

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...


class Fork:
    """A fork of this process that does the jobs of a study, one after the other, in a process group of its own.

    Arguments:
        recipe: path of the recipe.
        out: folder of the study.
        log: file for what it prints.
        options: of `moebius.lab.study.run.plan`.
    """

    def __init__(self, recipe: Path, out: Path, log: Path, options: Mapping[str, Any]):
        sys.stdout.flush()
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            with log.open("wb", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = _do_study(recipe, out, options)
            log.with_suffix(".modules").write_text("\n".join(sys.modules))
            os._exit(code)

    def poll(self) -> int | None:
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        code = self._collect(0)
        assert code is not None
        return code

    def _collect(self, flags: int) -> int | None:
        if self.code is None and (status := os.waitpid(self.pid, flags))[0]:
            self.code = os.waitstatus_to_exitcode(status[1])
        return self.code


def _do_study(recipe: Path, out: Path, options: Mapping[str, Any]) -> int:
    try:
        console = Console(file=sys.stdout, width=120)
        # As many workers as cores: each job has a thread.
        do_jobs(plan(recipe, out, device="cpu", workers=count_cores(), console=console, **options), console)
        sys.stdout.flush()
    except MoebiusError as error:
        os.write(2, f"error: {error}\n".encode())
        return 2
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return 1
    return 0


def import_modules(log: Path) -> None:
    """Import what a fork has imported, so that those that follow need not."""
    for name in log.with_suffix(".modules").read_text().splitlines():
        # Some are no modules, but what others put among them.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def start_command(recipe: Path, out: Path, log: Path, options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start `moebius run` in a process group of its own.

    Arguments:
        recipe, out, log: as for `Fork`.
        options: of the command.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "moebius", "run", str(recipe), "--out", str(out), "--device", "cpu", *words]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def kill(process: Process, target: str, number: int) -> None:
    """Send SIGKILL.

    Arguments:
        process: the study's.
        target: "command" for it alone, "child" for a process that it has started, "group" for all of them.
        number: which of the children, counted round.
    """
    if target == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif target == "command":
        os.kill(process.pid, signal.SIGKILL)
    elif children := find_children(process.pid):
        os.kill(children[number % len(children)], signal.SIGKILL)


def find_children(pid: int) -> list[int]:
    """The processes that a process has started, of Linux's `/proc`."""
    threads = Path(f"/proc/{pid}/task")
    return sorted({int(word) for path in threads.glob("*/children") for word in path.read_text().split()})
