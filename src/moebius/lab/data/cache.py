"""A decoded source as one file, beside the hash of its contents."""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import safetensors
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor

from moebius.kit.errors import DataError
from moebius.kit.files import atomic_path
from moebius.lab.data.decode import VERSION, decode
from moebius.lab.data.raw import Source

TENSORS = ("train.images", "train.labels", "test.images", "test.labels")


class Decoded(NamedTuple):
    """A decoded source: its tensors by the names in TENSORS, its classes, and the hash of both."""

    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    digest: str


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/moebius`, or `~/.cache/moebius`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moebius"


def cached_set(source: Source, size: int, color: str, data_dir: Path | None, cache_dir: Path | None) -> Decoded:
    """The decoded source: from its cache file if that is whole, else decoded now and put there.

    The file is memory-mapped, so that processes on one machine share it. A folder that cannot be written to costs a
    warning and the time to decode again, not the run.

    Raises:
        DataError: for files that are missing, and for rows that cannot be decoded; nothing is written then.
    """
    raw = source.open(data_dir)
    key = hashlib.sha256(repr((raw.identity, VERSION, size, color)).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w.-]+", "-", source.name)
    path = (cache_dir or default_folder()) / f"{readable}-{size}-{color}-{key}.safetensors"
    found = _read(path)
    if found:
        return found
    with _locked(path):
        found = _read(path)
        if found:
            return found
        contents = raw.read()
        for split, rows in (("train", contents.train), ("test", contents.test)):
            if not len(rows):
                raise DataError(f"{source.name}: the {split} split has no rows")
        train, test = (decode(rows, contents.classes, size, color) for rows in (contents.train, contents.test))
        result = _with_digest(dict(zip(TENSORS, (*train, *test), strict=True)), contents.classes)
        try:
            with atomic_path(path) as temporary:
                metadata = {"classes": json.dumps(result.classes), "digest": result.digest}
                save_file(result.tensors, temporary, metadata)
        # safetensors tells of a full disk by an exception of its own.
        except (OSError, safetensors.SafetensorError) as error:
            warnings.warn(f"decoded images are not cached: {error}", stacklevel=2)
        return result


def _with_digest(tensors: dict[str, Tensor], classes: tuple[str, ...]) -> Decoded:
    total = hashlib.sha256(json.dumps(classes).encode())
    for name in TENSORS:
        total.update(repr(tuple(tensors[name].shape)).encode())
        total.update(memoryview(tensors[name].numpy()))  # pyright: ignore[reportArgumentType]
    return Decoded(tensors, classes, total.hexdigest())


def _read(path: Path) -> Decoded | None:
    """What the file holds, or None if it is missing, cut short, or not what was written."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        result = _with_digest(tensors, tuple(json.loads(metadata["classes"])))
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    return result if result.digest == metadata["digest"] else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process decode while others wait for its file.

    The lock only saves work: files are written whole or not at all, so that going on without it is safe.
    """
    name = path.with_name(f".{path.name}.lock")
    lock = FileLock(name, timeout=600)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock)
            stack.callback(_remove, name)
        yield


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
