import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moebius.kit.errors import DataError
from moebius.lab.data.cache import default_cache_folder, load_decoded
from moebius.lab.data.sources.hub import Hub

LOAD = """
import sys
from pathlib import Path
from moebius.lab.data.cache import load_decoded
from moebius.lab.data.sources.textures import Textures
print(load_decoded(Textures(300), 8, "grey", None, Path(sys.argv[1])).digest)
"""


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def load(data_dir: Path, cache: Path, size: int = 4, color: str = "grey"):
    return load_decoded(Hub("any/toy"), size, color, data_dir, cache)


def test_the_second_time_the_file_is_read(toy_set, tmp_path):
    cache = tmp_path / "cache"
    first = load(toy_set, cache)
    (file,) = list_files(cache)
    written = file.stat().st_mtime_ns
    second = load(toy_set, cache)
    assert list_files(cache) == [file]
    assert file.stat().st_mtime_ns == written
    assert first.digest == second.digest
    assert first.classes == second.classes == ("dark", "light")
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert second.tensors["train.images"][:, 0, 0, 0].tolist() == [0, 10, 20, 30]


def test_every_size_and_colour_has_its_own_file(toy_set, tmp_path):
    digests = {load(toy_set, tmp_path / "cache", size, color).digest for size in (4, 5) for color in ("grey", "rgb")}
    assert len(digests) == len(list_files(tmp_path / "cache")) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty"])
def test_a_damaged_file_is_noticed_and_built_again(toy_set, tmp_path, damage):
    cache = tmp_path / "cache"
    first = load(toy_set, cache)
    (file,) = list_files(cache)
    intact = file.read_bytes()
    flipped = intact[:-1] + bytes([intact[-1] ^ 1])
    file.write_bytes({"cut": intact[:-1], "flip": flipped, "text": b"hello, world", "empty": b""}[damage])
    assert load(toy_set, cache).digest == first.digest
    (rebuilt,) = list_files(cache)
    written = rebuilt.stat().st_mtime_ns
    assert load(toy_set, cache).digest == first.digest
    assert rebuilt.stat().st_mtime_ns == written
    assert rebuilt.stat().st_size == len(intact)


def test_changed_bytes_make_another_set(toy_set, tmp_path, make_parquet, make_png):
    before = load(toy_set, tmp_path / "cache").digest
    make_parquet(toy_set / "toy/test-00000-of-00001.parquet", [make_png(41)], [1], ["dark", "light"])
    assert load(toy_set, tmp_path / "cache").digest != before


def test_nothing_is_left_behind_by_a_bad_row(toy_set, tmp_path, make_parquet, make_png):
    make_parquet(toy_set / "toy/test-00000-of-00001.parquet", [make_png(0), b"hello"], [1, 0], ["dark", "light"])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: row 1: the image cannot be decoded"):
        load(toy_set, tmp_path / "cache")
    assert list_files(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_to_costs_a_warning(toy_set, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="decoded images are not cached"):
        decoded = load(toy_set, tmp_path / "file" / "cache")
    assert len(decoded.tensors["test.images"]) == 2


def test_processes_that_start_at_once_on_an_empty_cache_agree(tmp_path):
    cache = tmp_path / "cache"
    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(cache)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    digests = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(digests)) == 1
    assert [path.suffix for path in list_files(cache)] == [".safetensors"]


def test_the_default_folder_honours_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "moebius"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "moebius"
