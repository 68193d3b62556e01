"""Files are written completely or not at all."""

import math
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.files import atomic_path, read_json, unsynced, write_json, write_text


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("sync", [True, False])
def test_the_new_file_takes_the_place_of_the_old(tmp_path, sync):
    path = tmp_path / "deep" / "er" / "a.txt"
    for text in ("old", "new"):
        with atomic_path(path, sync) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == path.suffix
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert list_names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_stays_when_the_block_raises(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list_names(tmp_path) == ["a.txt"]


def test_nothing_is_left_where_there_was_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "a.txt", RuntimeError)
    assert list_names(tmp_path) == []


def test_a_folder_in_the_way_is_an_error_that_leaves_no_temporary_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "text")
    assert list_names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has a umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    previous = os.umask(mask)
    try:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("text")
            temporary.chmod(0o600)
        assert os.umask(mask) == mask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_json_comes_back_to_the_bit(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text(encoding="utf-8").endswith("\n")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan_and_no_infinity(tmp_path, bad):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": [bad]})
    assert read_json(path) == {"x": 1.0}
    assert list_names(tmp_path) == ["a.json"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Möbius –∞")
    assert (tmp_path / "a.txt").read_bytes() == "Möbius –∞".encode()


def test_nothing_is_flushed_inside_of_unsynced(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with unsynced():
        write_text(tmp_path / "a.txt", "text")
    assert not flushed
    assert (tmp_path / "a.txt").read_text() == "text"
    write_text(tmp_path / "a.txt", "text")
    assert len(flushed) == (2 if os.name == "posix" else 1)
