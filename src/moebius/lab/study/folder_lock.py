"""One process at a time on a folder."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from moebius.kit.commands import beside, move_aside
from moebius.kit.errors import StudyError, UnwritableError
from moebius.kit.files import atomic_path


@contextmanager
def folder_lock(folder: Path, wait: float | int = 0.0) -> Iterator[None]:
    """Lock the folder for this process; the system releases the lock when the process ends, however it ends.

    Arguments:
        folder: created if it does not exist.
        wait: seconds to wait until another process releases it.

    Raises:
        StudyError: another process has locked it, or it cannot be written, or its lock file is a link.
    """
    # In a file of its own: older versions of filelock empty the lock file when they try to lock it.
    holder, place = folder / ".pid", folder / ".node"
    path = folder / ".lock"
    lock = FileLock(path, timeout=wait)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for path, text in ((holder, str(os.getpid())), (place, platform.node())):
            with atomic_path(path, sync=False) as temporary:
                temporary.write_text(text)
    except Timeout:
        pid = holder.read_text() if holder.is_file() else "unknown"
        node = place.read_text() if place.is_file() else platform.node()
        where = "" if node == platform.node() else f" on {node}"
        fix = f"wait for it, or --out {beside(folder)}"
        raise StudyError(f"{folder}: another process (pid {pid}{where}) is at work on this folder", fix) from None
    except UnwritableError:
        lock.release()
        raise
    except OSError as error:
        lock.release()
        if path.is_symlink():
            raise StudyError(f"{path}: a lock may not be a link", move_aside(path)) from None
        raise StudyError(f"{folder}: cannot be written ({error.strerror})", "--out a-folder-of-yours") from None
    try:
        yield
    finally:
        lock.release()
