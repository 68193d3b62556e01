import socket
import sys
import urllib.request

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError, DataError, MissingExtraError
from moebius.lab.explorer import explore_model, explore_run, explore_saved
from moebius.lab.explorer.server import Server


def fetch(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


def test_explore_serves_until_it_is_closed(picture_rows, pictures):
    with mb.explore(pictures.source.subject.model, picture_rows, browser=False, rows=20) as server:
        assert "20 of 150 row" in fetch(server.url)
        assert len(server.url.split("/")[3]) >= 32
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(ArgumentError, match="port: cannot be opened"):
            Server(pictures, port)
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", port)) != 0


def test_the_loopback_alone_is_served(pictures):
    with Server(pictures) as server:
        assert server._socket.getsockname()[0] == "127.0.0.1"
        assert server.url in server._repr_html_()
        with Server(pictures) as second:
            assert second.url.split("/")[3] != server.url.split("/")[3]


def test_a_run_is_explored_by_its_folder(table_run):
    with mb.explore(str(table_run), browser=False) as server:
        assert "study / soft / seed-0" in fetch(server.url)


def test_bad_input_is_refused(picture_rows, pictures):
    model = pictures.source.subject.model
    for arguments, options, words in (
        ((model,), {}, "data: needs rows"),
        ((model, picture_rows), {"rows": 0}, "rows: needs at least 1"),
        ((model, picture_rows), {"port": 70000, "rows": 2}, "port: needs a number"),
    ):
        with pytest.raises(ArgumentError, match=words):
            mb.explore(*arguments, browser=False, **options)


def test_each_output_needs_the_name_of_its_class(picture_rows, pictures):
    for names in (["ant", "bee"], ["ant", "bee", "cow", "dog"]):
        with pytest.raises(ArgumentError, match="classes: needs a name for each of the 3 outputs"):
            explore_model(pictures.source.subject.model, picture_rows, classes=names)


def test_a_saved_model_is_explored_with_rows_of_a_file(pictures, picture_rows, tmp_path):
    from safetensors.torch import save_file

    x, y = picture_rows
    mb.save(pictures.source.subject.model, tmp_path / "model")
    save_file({"x": x, "y": y}, tmp_path / "rows.safetensors")
    explorer = explore_saved(tmp_path / "model", tmp_path / "rows.safetensors")
    assert explorer.table.frame["loss"].tolist() == pytest.approx(pictures.table.frame["loss"].tolist(), abs=1e-5)
    assert explorer.title == "model"
    save_file({"x": x}, tmp_path / "half.safetensors")
    for name, words in (("half", "holds no tensor y"), ("none", "cannot be read")):
        with pytest.raises(DataError, match=words):
            explore_saved(tmp_path / "model", tmp_path / f"{name}.safetensors")


def test_a_saved_model_is_explored_with_the_rows_of_a_run(table_run, tmp_path):
    own = explore_run(table_run)
    mb.save(mb.load(table_run), tmp_path / "model")
    explorer = explore_saved(tmp_path / "model", table_run, "regression")
    assert explorer.table.frame["loss"].tolist() == pytest.approx(own.table.frame["loss"].tolist(), rel=1e-4)


def test_what_is_missing_is_named(picture_rows, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "moebius.lab.explorer.server")
    with pytest.raises(MissingExtraError, match=r"uvicorn\n.*pip install 'moebius\[explorer\]'"):
        mb.explore(pictures.source.subject.model, picture_rows, browser=False)


def test_a_model_elsewhere_than_on_the_cpu_is_refused(picture_rows):
    moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)]).to("meta")
    with pytest.raises(ArgumentError, match="on the CPU"):
        mb.explore(moe, (torch.randn(4, 4), torch.zeros(4, dtype=torch.long)), browser=False)
