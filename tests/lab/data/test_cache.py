import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moebius.kit.errors import DataError
from moebius.lab.data.cache import cached_set, default_folder
from moebius.lab.data.sources.hub import Hub

LOAD = """
import sys
from pathlib import Path
from moebius.lab.data.cache import cached_set
from moebius.lab.data.sources.textures import Textures
print(cached_set(Textures(300), 8, "grey", None, Path(sys.argv[1])).digest)
"""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def get(data_dir: Path, cache: Path, size: int = 4, color: str = "grey"):
    return cached_set(Hub("any/toy"), size, color, data_dir, cache)


def test_the_second_time_the_file_is_read(toy_set, tmp_path):
    cache = tmp_path / "cache"
    first = get(toy_set, cache)
    (file,) = files(cache)
    written = file.stat().st_mtime_ns
    second = get(toy_set, cache)
    assert files(cache) == [file]
    assert file.stat().st_mtime_ns == written
    assert first.digest == second.digest
    assert first.classes == second.classes == ("dark", "light")
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert second.tensors["train.images"][:, 0, 0, 0].tolist() == [0, 10, 20, 30]


def test_size_and_colour_have_files_of_their_own(toy_set, tmp_path):
    digests = {get(toy_set, tmp_path / "cache", size, color).digest for size in (4, 5) for color in ("grey", "rgb")}
    assert len(digests) == len(files(tmp_path / "cache")) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty"])
def test_a_damaged_file_is_noticed_and_built_again(toy_set, tmp_path, damage):
    cache = tmp_path / "cache"
    first = get(toy_set, cache)
    (file,) = files(cache)
    whole = file.read_bytes()
    flipped = bytes([whole[-1] ^ 1])
    file.write_bytes({"cut": whole[:-1], "flip": whole[:-1] + flipped, "text": b"hello, world", "empty": b""}[damage])
    assert get(toy_set, cache).digest == first.digest
    (again,) = files(cache)
    rebuilt = again.stat().st_mtime_ns
    assert get(toy_set, cache).digest == first.digest
    assert again.stat().st_mtime_ns == rebuilt
    assert again.stat().st_size == len(whole)


def test_other_bytes_are_another_set(toy_set, tmp_path, make_parquet, make_png):
    before = get(toy_set, tmp_path / "cache").digest
    make_parquet(toy_set / "toy/test-00000-of-00001.parquet", [make_png(41)], [1], ["dark", "light"])
    assert get(toy_set, tmp_path / "cache").digest != before


def test_nothing_is_left_behind_by_a_bad_row(toy_set, tmp_path, make_parquet, make_png):
    make_parquet(toy_set / "toy/test-00000-of-00001.parquet", [make_png(0), b"hello"], [1, 0], ["dark", "light"])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: row 1: the image cannot be decoded"):
        get(toy_set, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_to_costs_a_warning(toy_set, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="decoded images are not cached"):
        result = get(toy_set, tmp_path / "file" / "cache")
    assert len(result.tensors["test.images"]) == 2


def test_processes_that_start_at_once_on_an_empty_cache_agree(tmp_path):
    cache = tmp_path / "cache"
    started = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(cache)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(said)) == 1
    assert [path.suffix for path in files(cache)] == [".safetensors"]


def test_the_default_folder_honours_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "moebius"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "moebius"
