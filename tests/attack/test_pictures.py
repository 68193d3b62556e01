"""Folders of images with things in them that are no files: refused at once, by name."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from moebius.kit.errors import DataError
from moebius.lab.cli._prediction import _pictures
from moebius.lab.data.picture import read_image
from moebius.lab.data.sources import Folder

sys.path.insert(0, str(Path(__file__).parent))
from mutations.folders import plant

sys.path.pop(0)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is at most 107 bytes long
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (2, 2), 9).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "loop", "dangling"])
def test_what_is_no_file_is_named_and_not_read(kind, images, tmp_path):
    plant(kind, tmp_path / "images" / "a" / "x.png")
    path = images / "a" / "x.png"
    with pytest.raises(DataError, match=r"x\.png: is no plain file") as caught:
        Folder(str(images)).open()
    assert shlex.split(caught.value.fix or "") == ["mv", str(path), f"{path}.damaged"]
    with pytest.raises(DataError, match="there is no such image file"):
        read_image(path, 2)
    assert path not in _pictures([images])


def test_jfif_is_jpeg(images):
    Image.new("L", (2, 2), 9).save(images / "a" / "x.jfif", format="JPEG")
    contents = Folder(str(images)).open().read()
    assert len(contents.train) + len(contents.test) == 9
    assert images / "a" / "x.jfif" in _pictures([images])


def test_files_that_are_no_pictures_are_counted(images, capsys):
    for name in ("a/notes.txt", "a/more.TXT", "b/LICENSE", "b/.hidden"):
        (images / name).write_text("x")
    os.mkfifo(images / "a" / "x.png")
    assert len(_pictures([images])) == 8
    text = "5 files that are no pictures are left out (1 of .png, 2 of .txt, 2 of no suffix)"
    assert text in capsys.readouterr().err
    for path in [path for path in images.rglob("*") if path.suffix != ".png" and path.is_file()]:
        path.unlink()
    (images / "a" / "x.png").unlink()
    assert len(_pictures([images])) == 8
    assert capsys.readouterr().err == ""
