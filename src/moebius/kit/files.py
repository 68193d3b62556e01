"""Writing files atomically: a reader, or a run that resumes after a crash, never sees a half-written file.

A folder may come from elsewhere: no link in it that has the name of a file to write is followed.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from moebius.kit.errors import DamagedFileError, UnwritableError
from moebius.kit.seals import DIFFERS, SEAL, is_whole, seal_file, sealed

# Of a JSON file that is read: more than a study of thousands of runs writes.
MOST_BYTES = 1 << 29
_syncs = ContextVar("syncs", default=True)


@contextmanager
def unsynced() -> Iterator[None]:
    """Inside the block no file is flushed to the disk: for a folder that does not outlive the process."""
    token = _syncs.set(False)
    try:
        yield
    finally:
        _syncs.reset(token)


@contextmanager
def atomic_path(path: Path, sync: bool = True, seal: bool = False, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it to `path` when the block ends without an error.

    Arguments:
        path: the file to write; missing parent folders are created.
        sync: flush the file and its folder to the disk before returning, so that it also survives a power cut; not
            inside `unsynced`.
        seal: the block writes `SEAL` somewhere into the file, which becomes the digest that `check_seal` checks.
        keep: where the file goes that was at `path` before. Between the two renames there is only this one.

    Raises:
        UnwritableError: the disk is full, read-only or broken; the file at `path` is as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic_path(path) as temporary:
        ...     _ = temporary.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    with write_errors(path), _temporary_path(path, sync and _syncs.get(), seal, keep) as temporary:
        yield temporary


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Inside the block, which writes, moves or removes a file or folder, an error of the system names it.

    Raises:
        UnwritableError: the disk is full, read-only or broken.

    Example:
        >>> try:
        ...     with write_errors(Path("gone/a.txt")):
        ...         Path("gone/a.txt").unlink()
        ... except UnwritableError as error:
        ...     str(error.path)
        'gone/a.txt'
    """
    try:
        yield
    except UnwritableError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise UnwritableError(path, error.errno) from error
    except SafetensorError as error:
        match = re.search(r"\(os error (\d+)\)", str(error))
        if match is None:
            raise
        raise UnwritableError(path, int(match[1])) from error


@contextmanager
def _temporary_path(path: Path, sync: bool, seal: bool, keep: Path | None) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    temporary.unlink(missing_ok=True)  # a link of this name would lead the writer elsewhere
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some libraries write files that only the owner can read
        if seal:
            seal_file(temporary)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        if sync and os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if there is one.

    Raises:
        UnwritableError: the disk is read-only or broken.
    """
    with write_errors(path):
        path.unlink(missing_ok=True)


def open_to_append(path: Path) -> IO[str]:
    """Open a text file, as UTF-8, to add lines at its end; create it where there is none.

    Raises:
        OSError: the path is a link, a pipe, a device or a folder.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lines.txt"
        >>> for line in ("first", "second"):
        ...     with open_to_append(path) as lines:
        ...         _ = lines.write(line + "\\n")
        >>> path.read_text().split()
        ['first', 'second']
    """
    return open(path, "a", encoding="utf-8", opener=_open_plain_file)


def is_plain_file(path: Path) -> bool:
    """Whether the path, or what it links to, is a file with an end: no pipe, device, socket or loop of links."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a loop of links, a name that is too long, or one with NUL
        return False


def _open_plain_file(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe that nobody reads waits for ever.
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", path)
    return descriptor


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; an object begins with its `digest`, which `read_json` checks and takes out.

    Raises:
        ValueError: the value contains NaN or infinity, which JSON has no numbers for.
    """
    write_text(path, json_text(value))


def json_text(value: Any, allow_nan: bool = False, **options: Any) -> str:
    """The text of a JSON file as `write_json` writes it; `options` are those of `json.dumps`."""
    if not isinstance(value, dict):
        return json.dumps(value, indent=1, allow_nan=allow_nan, **options) + "\n"
    if "digest" in value:
        raise ValueError("the key digest is that of the file")
    text = json.dumps({"digest": SEAL, **value}, indent=1, allow_nan=allow_nan, **options) + "\n"
    return sealed(text.encode()).decode()


def read_json(path: Path) -> Any:
    """Read the value of a JSON file.

    Raises:
        DamagedFileError: it is no JSON, or not what `write_json` wrote.
        OSError: the file cannot be opened.
    """
    value = parse_json(path, read_sealed(path))
    if isinstance(value, dict):
        value.pop("digest", None)
    return value


def read_sealed(path: Path) -> bytes:
    """The bytes of a file, which a seal in it confirms.

    Raises:
        DamagedFileError: the digest is not that of the bytes.
        OSError: the file cannot be opened.
    """
    if not is_plain_file(path):
        path.stat()  # raises where there is nothing
        raise DamagedFileError(path, "it is no plain file")
    if path.stat().st_size > MOST_BYTES:
        raise DamagedFileError(path, f"it has more than {MOST_BYTES:,} bytes")
    content = path.read_bytes()
    if is_whole(content) is False:
        raise DamagedFileError(path, DIFFERS)
    return content


def parse_json(path: Path, content: bytes) -> Any:
    """The value of a JSON text that the file holds.

    Raises:
        DamagedFileError: it is no JSON.
    """
    try:
        return json.loads(content.decode())
    except ValueError as error:
        raise DamagedFileError(path, f"it is no JSON: {error}") from None
    except RecursionError:
        raise DamagedFileError(path, "its JSON is nested too deeply") from None
