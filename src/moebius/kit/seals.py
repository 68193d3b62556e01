"""Seals: a file that is read back carries the digest of its bytes, so that damage is an error and no other result.

A format leaves room for the digest in a text of its own: a key of JSON, the header of safetensors, the metadata of
Parquet. `SEAL` is the empty room, and the digest is that of the whole file with empty room. So one rule holds for all
formats, it covers header and contents alike, and no second file has to be kept in step.
"""

import hashlib
import mmap
from pathlib import Path

from moebius.kit.errors import DamagedFileError

_MARK = b"moebius-sha256:"
_EMPTY = b"0" * 64
SEAL = (_MARK + _EMPTY).decode()
# The seal is so near to the beginning or the end of a file.
_WINDOW = 1 << 24
DIFFERS = "its bytes are not those that were written"


def sealed(content: bytes) -> bytes:
    """The content with the digest in the place of its first `SEAL`.

    Example:
        >>> text = sealed(('{"digest": "%s"}' % SEAL).encode())
        >>> is_whole(text), is_whole(text.replace(b"digest", b"digesu")), is_whole(b"{}")
        (True, False, None)
    """
    place = _find(content)
    assert place is not None
    return content[:place] + _digest(content, place) + content[place + len(_EMPTY) :]


def seal_file(path: Path) -> None:
    """Put the digest of a file that holds a `SEAL` into it."""
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = _find(content)
            assert place is not None
            digest = _digest(content, place)
        file.seek(place)
        file.write(digest)


def is_whole(content: bytes | mmap.mmap) -> bool | None:
    """Whether the content is what was sealed; None where it has no seal: earlier versions wrote none."""
    place = _find(content)
    return None if place is None else content[place : place + len(_EMPTY)] == _digest(content, place)


def check_seal(path: Path, fix: str | None = None) -> None:
    """Check that a file is as it was written; one without a seal passes.

    Arguments:
        path: of the file.
        fix: of the error; None for the command that moves the file aside.

    Raises:
        DamagedFileError: the digest is not that of the bytes.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return  # nothing to map
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if is_whole(content) is False:
                raise DamagedFileError(path, DIFFERS, fix)


def _find(content: bytes | mmap.mmap) -> int | None:
    """Where the digest begins."""
    place = content.find(_MARK, 0, _WINDOW)
    place = content.find(_MARK, max(0, len(content) - _WINDOW)) if place < 0 else place
    return None if place < 0 else place + len(_MARK)


def _digest(content: bytes | mmap.mmap, place: int) -> bytes:
    digest = hashlib.sha256()
    with memoryview(content) as view, view[:place] as before, view[place + len(_EMPTY) :] as after:
        for part in (before, _EMPTY, after):
            digest.update(part)
    return digest.hexdigest().encode()
