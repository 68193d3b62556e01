"""A disk that fails: a shim below the file room, at what Python, safetensors and pyarrow call to change a disk."""

import builtins
import contextlib
import errno
import io
import os
from dataclasses import dataclass

import pyarrow.parquet
import pytest
import safetensors
import safetensors.torch

rename = os.rename


class Killed(BaseException):
    """The process has ended: nothing that it would do later reaches the disk."""


@dataclass(frozen=True)
class Fault:
    """How a call fails.

    Arguments:
        number: of the error; None where the process ends.
        lasts: whether all later calls fail, too.
        is_short: whether half of what is written reaches the disk.
    """

    number: int | None
    lasts: bool = True
    is_short: bool = False


FAULTS = {
    "full": Fault(errno.ENOSPC),
    "broken": Fault(errno.EIO, lasts=False),
    "read-only": Fault(errno.EROFS),
    "short": Fault(errno.ENOSPC, is_short=True),
    "killed": Fault(None, is_short=True),
}


class Shim(contextlib.AbstractContextManager):
    """Counts the calls that change something in a folder, and fails the `place`-th; 0 for none."""

    def __init__(self, folder, fault=FAULTS["full"], place=0):
        self.folder, self.fault, self.place = str(folder), fault, place
        self.names, self.patch = [], pytest.MonkeyPatch()

    def __enter__(self):
        for name in ("mkdir", "rmdir", "unlink", "chmod", "rename", "replace", "link", "symlink", "truncate", "fsync"):
            self.patch.setattr(os, name, self._calling(name, getattr(os, name)))
        self.patch.setattr(os, "open", self._opening(os.open))
        for module in (builtins, io):
            self.patch.setattr(module, "open", self._opening_file(io.open))
        write_parquet = self._writing("parquet", pyarrow.parquet.write_table, 1, self._parquet_error)
        self.patch.setattr(pyarrow.parquet, "write_table", write_parquet)
        write_tensors = self._writing("tensors", safetensors.torch.serialize_file, 1, self._tensor_error)
        self.patch.setattr(safetensors.torch, "serialize_file", write_tensors)
        return self

    def __exit__(self, *exception):
        self.patch.undo()

    def count(self, name, path="", make_error=None, before=lambda: None):
        """Count a call; raises its error, after `before`, which leaves half of what it writes."""
        self.names.append(f"{name} {os.path.relpath(path, self.folder)}" if path else name)
        number = len(self.names)
        if not self.place or number < self.place or (number > self.place and not self.fault.lasts):
            return
        if self.fault.is_short and number == self.place:
            before()
        if self.fault.number is None:
            raise Killed
        raise (make_error or self._system_error)(self.fault.number, str(path) or None)

    def is_counted(self, path):
        return not isinstance(path, int) and os.path.abspath(os.fspath(path)).startswith(self.folder)

    def _calling(self, name, call):
        def counted(path, *args, **kwargs):
            if name == "fsync":
                self.count(name)
            elif self.is_counted(path) and os.path.lexists(path) == (name != "mkdir"):
                self.count(name, path)
            return call(path, *args, **kwargs)

        return counted

    def _opening(self, call):
        def counted(path, flags, *args, **kwargs):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self.is_counted(path):
                self.count("open", path)
            return call(path, flags, *args, **kwargs)

        return counted

    def _opening_file(self, call):
        def counted(path, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not (set(mode) & set("wax+") and self.is_counted(path)):
                return call(path, mode, buffering, encoding, errors, newline, closefd, opener)
            self.count("open", path)
            raw = CountedFile(self, path, mode.replace("b", "").replace("t", ""), opener=opener)
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return counted

    def _writing(self, name, call, argument, make_error):
        def counted(*args, **kwargs):
            path = args[argument]

            def write_half():
                call(*args, **kwargs)
                os.truncate(path, os.path.getsize(path) // 2)
                if name == "tensors":  # safetensors writes under a name of its own, and renames at the end
                    rename(path, os.path.join(os.path.dirname(path), ".tmpAb3xYz"))

            self.count(name, path, make_error, write_half)
            return call(*args, **kwargs)

        return counted

    @staticmethod
    def _system_error(number, path):
        return OSError(number, os.strerror(number), path)

    @staticmethod
    def _parquet_error(number, path):
        return OSError(number, f"Error writing bytes to file. Detail: [errno {number}] {os.strerror(number)}")

    @staticmethod
    def _tensor_error(number, path):
        text = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        return safetensors.SafetensorError(text)


class CountedFile(io.FileIO):
    """A file whose writes a shim counts."""

    def __init__(self, shim, path, mode, opener):
        self.shim, self.path = shim, path
        super().__init__(path, mode, opener=opener)

    def write(self, content):
        half = bytes(content)[: len(content) // 2]
        self.shim.count("write", self.path, before=lambda: super(CountedFile, self).write(half))
        return super().write(content)
