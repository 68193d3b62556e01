"""Decoded sets of images on disk: one safetensors file per set, size and colour, with a hash of its contents."""

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
from moebius.kit.names import check_names
from moebius.lab.data.decode import VERSION, decode_rows
from moebius.lab.data.raw import Source

TENSORS = ("train.images", "train.labels", "test.images", "test.labels")


class Decoded(NamedTuple):
    """A decoded set.

    Arguments:
        tensors: images and labels of both splits, by the names in TENSORS.
        classes: names of the classes; a label is a position in it.
        digest: hash of the tensors and the names.
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    digest: str


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/moebius`, or `~/.cache/moebius`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moebius"


def load_decoded(source: Source, size: int, color: str, data_dir: Path | None, cache_dir: Path | None) -> Decoded:
    """Read the decoded set from its cache file, or decode it and write the file where there is no intact one.

    The tensors of a cache file are memory-mapped, so that processes on one machine share them. Where the cache folder
    cannot be written to, the function warns and returns the decoded set.

    Arguments:
        source: where the rows come from. Its `identity`, with the size and the colour, is the key of the cache file.
        size: height and width of the images, in pixels.
        color: "grey" (1 channel) or "rgb" (3).
        data_dir: folder with the source's files; None = the source's default.
        cache_dir: folder of the cache files; None = `default_cache_folder()`.

    Raises:
        DataError: files are missing, a class has no printable name, a split has no rows, or a row cannot be decoded; no
            cache file is written then.
    """
    raw = source.open(data_dir)
    key = hashlib.sha256(repr((raw.identity, VERSION, size, color)).encode()).hexdigest()[:16]
    readable_name = re.sub(r"[^\w.-]+", "-", source.name)
    path = (cache_dir or default_cache_folder()) / f"{readable_name}-{size}-{color}-{key}.safetensors"
    cached = _read_cache(path)
    if cached:
        return cached
    with _lock(path):
        # Another process may have written the file while this one waited for the lock.
        cached = _read_cache(path)
        if cached:
            return cached
        contents = raw.read()
        check_names("class", contents.classes, source.name)
        for split, rows in (("train", contents.train), ("test", contents.test)):
            if not len(rows):
                raise DataError(
                    f"{source.name}: the {split} split has no rows", f"add rows to the {split} split of {source.name}"
                )
        train, test = (decode_rows(rows, contents.classes, size, color) for rows in (contents.train, contents.test))
        decoded = _add_digest(dict(zip(TENSORS, (*train, *test), strict=True)), contents.classes)
        try:
            with atomic_path(path) as temporary:
                metadata = {"classes": json.dumps(decoded.classes), "digest": decoded.digest}
                save_file(decoded.tensors, temporary, metadata)
        # safetensors raises its own exception for a full disk.
        except (OSError, safetensors.SafetensorError) as error:
            warnings.warn(f"decoded images are not cached: {error}", stacklevel=2)
        return decoded


def _add_digest(tensors: dict[str, Tensor], classes: tuple[str, ...]) -> Decoded:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for name in TENSORS:
        digest.update(repr(tuple(tensors[name].shape)).encode())
        digest.update(memoryview(tensors[name].numpy()))  # pyright: ignore[reportArgumentType]
    return Decoded(tensors, classes, digest.hexdigest())


def _read_cache(path: Path) -> Decoded | None:
    """The decoded set in the file; None where the file is missing or truncated, or its contents changed."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        decoded = _add_digest(tensors, tuple(json.loads(metadata["classes"])))
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    return decoded if decoded.digest == metadata["digest"] else None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on the cache file, so that one process decodes and others wait.

    The lock only saves work. Where it cannot be had (a read-only folder, ten minutes of waiting), the block runs
    without it, which is safe: a cache file appears complete or not at all.
    """
    lock_path = path.with_name(f".{path.name}.lock")
    lock = FileLock(lock_path, timeout=600)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock)
            stack.callback(_remove_file, lock_path)
        yield


def _remove_file(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
