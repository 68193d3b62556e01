"""One process at a time on a folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moebius.kit.errors import StudyError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


@contextmanager
def folder_lock(folder: Path, wait: float | int = 0.0) -> Iterator[None]:
    """Lock the folder for this process; the system releases the lock when the process ends, however it ends.

    Arguments:
        folder: created if it does not exist.
        wait: seconds to wait until another process releases it.

    Raises:
        StudyError: another process has locked it, or it cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror})", "--out a-folder-of-yours") from None
    with file:
        deadline = time.monotonic() + wait
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                fix = f"wait for it, or --out {folder}-2"
                raise StudyError(f"{folder}: another process (pid {holder}) is at work on this folder", fix)
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
