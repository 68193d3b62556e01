"""Seals: a file that is read back carries the digest of its bytes, so that damage is an error and no other result.

A format leaves room for the digest in a text of its own: a key of JSON, the header of safetensors, the metadata of
Parquet. `SEAL` is the empty room, and the digest is that of the whole file with empty room. So one rule holds for all
formats, it covers header and contents alike, and no second file has to be kept in step.
"""

import hashlib
import io
from pathlib import Path

from moebius.kit.errors import DamagedFileError

_MARK = b"moebius-sha256:"
_EMPTY = b"0" * 64
SEAL = (_MARK + _EMPTY).decode()
# The seal is so near to the beginning or the end of a file.
_WINDOW = 1 << 24
_PIECE = 1 << 20
DIFFERS = "its bytes are not those that were written"


def sealed(content: bytes) -> bytes:
    """The content with the digest in the place of its first `SEAL`.

    Example:
        >>> text = sealed(('{"digest": "%s"}' % SEAL).encode())
        >>> is_whole(text), is_whole(text.replace(b"digest", b"digesu")), is_whole(b"{}")
        (True, False, None)
    """
    with io.BytesIO(content) as file:
        place = _find(file)
        assert place is not None
        return content[:place] + _digest(file, place) + content[place + len(_EMPTY) :]


def seal_file(path: Path) -> None:
    """Put the digest of a file that holds a `SEAL` into it."""
    with path.open("rb+") as file:
        place = _find(file)
        assert place is not None
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest)


def is_whole(content: bytes) -> bool | None:
    """Whether the content is what was sealed; None where it has no seal: earlier versions wrote none."""
    with io.BytesIO(content) as file:
        return _is_whole(file)


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
        if _is_whole(file) is False:
            raise DamagedFileError(path, DIFFERS, fix)


def _is_whole(file: io.BufferedIOBase) -> bool | None:
    place = _find(file)
    if place is None:
        return None
    file.seek(place)
    return file.read(len(_EMPTY)) == _digest(file, place)


def _find(file: io.BufferedIOBase) -> int | None:
    """Where the digest begins."""
    size = file.seek(0, io.SEEK_END)
    for start in (0, max(0, size - _WINDOW)):
        file.seek(start)
        place = file.read(_WINDOW).find(_MARK)
        if place >= 0:
            return start + place + len(_MARK)
    return None


def _digest(file: io.BufferedIOBase, place: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    digest.update(file.read(place))
    digest.update(_EMPTY)
    file.seek(len(_EMPTY), io.SEEK_CUR)
    buffer = bytearray(_PIECE)
    with memoryview(buffer) as view:
        while count := file.readinto(view):
            digest.update(view[:count])
    return digest.hexdigest().encode()
