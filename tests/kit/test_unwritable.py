"""A disk that takes no more: one error says so, and the file before stays; the limit of file sizes stands for it."""

import errno
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from moebius.kit.errors import MoebiusError, UnwritableError
from moebius.kit.files import atomic_path, write_json, write_text

WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "json": lambda path: write_json(path, {"text": "x" * 100_000}),
    "tensors": lambda path: save(path, torch.ones(100_000)),
}


def save(path, tensor):
    with atomic_path(path) as temporary:
        save_file({"tensor": tensor}, temporary)


@contextmanager
def small_files(most):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_the_file_before(kind, tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with small_files(50_000), pytest.raises(UnwritableError) as caught:
        WRITERS[kind](path)
    assert isinstance(caught.value, MoebiusError)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EFBIG
    assert str(path) in caught.value.message
    assert "ulimit -f" in (caught.value.fix or "")
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, 199])
def test_the_error_says_what_is_the_matter_and_how_to_go_on(number, tmp_path):
    with pytest.raises(UnwritableError, match="what was written before is kept") as caught, atomic_path(tmp_path / "a"):
        raise OSError(number, "text")
    assert caught.value.errno == number
    assert "run the same command again" in (caught.value.fix or "")
    assert list(tmp_path.iterdir()) == []
