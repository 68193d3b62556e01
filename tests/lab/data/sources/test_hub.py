import http.server
import os
import subprocess
import sys
import threading

import pytest
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.hub import Hub

ASK = """
import sys
from moebius.lab.data.sources.hub import Hub
from moebius.kit.errors import DataError
try:
    Hub("ylecun/mnist").open()
except DataError as error:
    print(error)
"""


def ask(tmp_path, **environment: str) -> str:
    """What a process says that has no data folder and nothing downloaded."""
    home = {"HF_HOME": str(tmp_path / "hub"), **environment}
    clean = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
    done = subprocess.run([sys.executable, "-c", ASK], env=clean | home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_a_folder_without_the_set_is_named_with_what_is_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"neither .*/mnist nor .* holds train-\*\.parquet\n  fix: put .* --data-dir"):
        Hub("ylecun/mnist").open(tmp_path)
    with pytest.raises(DataError, match="nowhere/mnist"):
        Hub("ylecun/mnist").open(tmp_path / "nowhere")


def test_a_local_folder_through_load_dataset_gives_the_same_rows(toy_set, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    here = load_sets([Hub("any/toy")], 4, data_dir=toy_set, cache_dir=tmp_path / "cache")
    there = load_sets([Hub(str(toy_set / "toy"))], 4, cache_dir=tmp_path / "cache")
    assert there.classes == here.classes
    assert torch.equal(there.train.images, here.train.images)
    assert torch.equal(there.test.labels, here.test.labels)
    assert there.test.domains.tolist() == [0, 0]
    # Not of where the files lie, nor of the container they come in.
    assert there.fingerprint == here.fingerprint
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


def test_offline_says_so_and_names_the_option(tmp_path):
    said = ask(tmp_path, HF_HUB_OFFLINE="1")
    assert "ylecun/mnist: the Hugging Face hub cannot be reached" in said
    assert "--data-dir FOLDER, where FOLDER/mnist holds train-*.parquet" in said


def test_a_refused_connection_says_the_same(tmp_path):
    said = ask(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "ylecun/mnist: the Hugging Face hub cannot be reached" in said
    assert "--data-dir FOLDER" in said


def test_a_hub_without_the_set_says_that_it_has_none(tmp_path):
    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = ask(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "ylecun/mnist: the set cannot be loaded (DatasetNotFoundError)" in said
    assert "check its name" in said
