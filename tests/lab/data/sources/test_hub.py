import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.hub import Hub

OPEN = """
import sys
from moebius.lab.data.sources.hub import Hub
from moebius.kit.errors import DataError
try:
    Hub("ylecun/mnist").open()
except DataError as error:
    print(error)
"""


def open_in_a_process(tmp_path, **environment: str) -> str:
    """What a process prints that opens a set without a data folder and without earlier downloads."""
    changes = {"HF_HOME": str(tmp_path / "hub"), **environment}
    inherited = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
    process = subprocess.run(
        [sys.executable, "-c", OPEN], env=inherited | changes, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_name_is_the_last_part():
    assert Hub("uoft-cs/cifar10").name == "cifar10"
    with pytest.raises(ArgumentError, match="name: must be the name of a set on the hub"):
        Hub("/")
    with pytest.raises(ArgumentError, match="name: needs some text, got ''"):
        Hub("")


@pytest.mark.parametrize("place", ["toy", "toy/plain_text", "."])
def test_files_are_found_by_the_sets_name_in_a_clone_and_in_the_folder_itself(toy_set, tmp_path, place):
    folder = tmp_path / "moved" / place
    folder.mkdir(parents=True, exist_ok=True)
    for path in (toy_set / "toy").iterdir():
        path.rename(folder / path.name)
    data = load_sets([Hub("any/toy")], 4, data_dir=tmp_path / "moved", cache_dir=tmp_path / "cache")
    assert data.classes == ("dark", "light")
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.test.images[:, 0, 0, 0].tolist() == [40, 50]


def test_another_split_may_be_tested_on(toy_set, tmp_path):
    (toy_set / "toy/test-00000-of-00001.parquet").rename(toy_set / "toy/validation-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"holds train-\*\.parquet but no test-\*\.parquet"):
        Hub("any/toy").open(toy_set)
    assert (
        len(load_sets([Hub("any/toy", test="validation")], 4, data_dir=toy_set, cache_dir=tmp_path / "cache").test) == 2
    )


def test_a_folder_without_the_set_is_named_with_the_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"neither .*/mnist nor .* holds train-\*\.parquet\n  fix: put .* --data-dir"):
        Hub("ylecun/mnist").open(tmp_path)
    with pytest.raises(DataError, match="nowhere/mnist"):
        Hub("ylecun/mnist").open(tmp_path / "nowhere")


def test_a_local_folder_through_load_dataset_gives_the_same_rows(toy_set, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    read = load_sets([Hub("any/toy")], 4, data_dir=toy_set, cache_dir=tmp_path / "cache")
    prepared = load_sets([Hub(str(toy_set / "toy"))], 4, cache_dir=tmp_path / "cache")
    assert prepared.classes == read.classes
    assert torch.equal(prepared.train.images, read.train.images)
    assert torch.equal(prepared.test.labels, read.test.labels)
    assert prepared.test.domains.tolist() == [0, 0]
    # The fingerprint depends neither on the folder of the files nor on their format.
    assert prepared.fingerprint == read.fingerprint
    with pytest.raises(DataError, match="no split called 'validation', it has train, test"):
        load_sets([Hub(str(toy_set / "toy"), test="validation")], 4, cache_dir=tmp_path / "cache")


def test_an_image_changed_in_a_local_folder_is_noticed(tmp_path, make_png, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    for part, value in (("train/a/1", 1), ("train/b/2", 2), ("test/a/3", 3), ("test/b/4", 4)):
        (tmp_path / "set" / part).parent.mkdir(parents=True)
        (tmp_path / "set" / f"{part}.png").write_bytes(make_png(value))
    before = load_sets([Hub(str(tmp_path / "set"))], 4, cache_dir=tmp_path / "cache")
    (tmp_path / "set/test/b/4.png").write_bytes(make_png(200))
    after = load_sets([Hub(str(tmp_path / "set"))], 4, cache_dir=tmp_path / "cache")
    assert before.classes == after.classes == ("a", "b")
    assert before.test.images[:, 0, 0, 0].tolist() == [3, 4]
    assert after.test.images[:, 0, 0, 0].tolist() == [3, 200]


def test_offline_the_error_names_the_option(tmp_path):
    output = open_in_a_process(tmp_path, HF_HUB_OFFLINE="1")
    assert "ylecun/mnist: the Hugging Face hub cannot be reached" in output
    assert "--data-dir FOLDER, where FOLDER/mnist holds train-*.parquet" in output


def test_a_refused_connection_gives_the_same_error(tmp_path):
    output = open_in_a_process(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "ylecun/mnist: the Hugging Face hub cannot be reached" in output
    assert "--data-dir FOLDER" in output


def test_a_hub_without_the_set_gives_another_error(tmp_path):
    class EmptyHub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EmptyHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        output = open_in_a_process(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "ylecun/mnist: the set cannot be loaded (DatasetNotFoundError)" in output
    assert "check its name" in output


def test_an_image_that_a_parquet_file_names_is_in_the_sets_folder_and_its_change_is_noticed(
    tmp_path, make_png, monkeypatch
):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    folder = tmp_path / "set"
    for split in ("train", "test"):
        rows = [{"bytes": None, "path": str(folder / name)} for name in (f"{split}-a", f"{split}-b")]
        table = pa.table({"image": rows, "label": ["a", "b"]})
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        for value, row in enumerate(rows):
            Path(row["path"]).write_bytes(make_png(value))
    source = Hub(str(folder), image="image", label="label")
    before = load_sets([source], 4, cache_dir=tmp_path / "cache")
    (folder / "test-b").write_bytes(make_png(200))
    after = load_sets([source], 4, cache_dir=tmp_path / "cache")
    assert before.test.images[:, 0, 0, 0].tolist() == [0, 1]
    assert after.test.images[:, 0, 0, 0].tolist() == [0, 200]
    (folder / "test-b").rename(tmp_path / "elsewhere.png")
    (folder / "test-b").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DataError, match="test-b' in the place of the bytes of an image"):
        load_sets([source], 4, cache_dir=tmp_path / "cache")
