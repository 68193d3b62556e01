import pytest

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.folder import Folder


@pytest.fixture
def fill(tmp_path, make_png):
    """Makes a folder of images, whose grey levels count up from `first`."""

    def fill(folder: str, count: int, first: int = 0):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "mine" / folder / f"{number:02}.png").write_bytes(make_png(first + number))

    return fill


def load(tmp_path, **options):
    return load_sets([Folder(str(tmp_path / "mine"), **options)], 4, cache_dir=tmp_path / "cache")


def grey_levels(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_train_and_test_folders(tmp_path, fill):
    for folder, count, first in (("train/a", 2, 0), ("train/b", 1, 10), ("test/b", 2, 20)):
        fill(folder, count, first)
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert data.domains == ("mine",)
    assert (grey_levels(data.train), data.train.labels.tolist()) == ([0, 1, 10], [0, 0, 1])
    assert (grey_levels(data.test), data.test.labels.tolist()) == ([20, 21], [1, 1])


def test_a_share_of_each_class_is_held_out(tmp_path, fill):
    fill("cats", 10)
    fill("dogs", 20, 100)
    data, renamed = load(tmp_path, share=0.3), load(tmp_path, share=0.3, name="pets")
    assert data.test.labels.bincount().tolist() == [3, 6]
    assert sorted(grey_levels(data.train) + grey_levels(data.test)) == [*range(10), *range(100, 120)]
    assert grey_levels(renamed.test) == grey_levels(data.test)
    assert renamed.domains == ("pets",)


def test_hidden_and_other_files_are_ignored(tmp_path, fill):
    fill("a", 5)
    (tmp_path / "mine/a/.hidden.png").write_text("no image")
    (tmp_path / "mine/a/notes.txt").write_text("no image")
    (tmp_path / "mine/.git").mkdir()
    data = load(tmp_path)
    assert data.classes == ("a",)
    assert len(data.train) + len(data.test) == 5


def test_a_relative_path_is_found_in_the_current_folder_and_in_the_data_folder(tmp_path, fill, monkeypatch):
    fill("a", 5)
    monkeypatch.chdir(tmp_path)
    assert len(load_sets([Folder("mine")], 4, cache_dir=tmp_path / "cache").test) == 1
    monkeypatch.chdir("/")
    assert len(load_sets([Folder("mine")], 4, data_dir=tmp_path, cache_dir=tmp_path / "cache").test) == 1


def test_a_missing_folder_is_named_with_all_places(tmp_path):
    with pytest.raises(DataError, match=r"mine: there is no such folder of images \(.*mine nor .*elsewhere/mine\)"):
        Folder("mine").open(tmp_path / "elsewhere")


def test_a_broken_image_is_named_and_leaves_no_cache_file(tmp_path, fill):
    fill("a", 5)
    (tmp_path / "mine/a/03.png").write_text("no image")
    with pytest.raises(DataError, match=r"mine/a/03\.png: the image cannot be decoded: no image in any known format"):
        load(tmp_path)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_a_test_class_that_is_not_trained_on_is_refused(tmp_path, fill):
    fill("train/a", 1)
    fill("test/b", 1)
    with pytest.raises(DataError, match=r"mine/test/b/00\.png: the label 'b' is none of the 1 classes"):
        load(tmp_path)


def test_invalid_layouts_are_refused(tmp_path, fill):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine: holds no class folders"):
        load(tmp_path)
    fill("a", 1)
    with pytest.raises(DataError, match="class 'a' has a single image"):
        load(tmp_path)
    (tmp_path / "mine/b").mkdir()
    with pytest.raises(DataError, match="mine/b: the class folder holds no images"):
        load(tmp_path)
    fill("train/a", 1)
    with pytest.raises(DataError, match="mine: there is a train folder but no test folder"):
        load(tmp_path)


def test_a_renamed_class_is_another_set(tmp_path, fill):
    fill("a", 5)
    before = load(tmp_path)
    (tmp_path / "mine/a").rename(tmp_path / "mine/b")
    after = load(tmp_path)
    assert after.classes == ("b",)
    assert after.fingerprint != before.fingerprint


def test_a_share_of_1_is_refused():
    with pytest.raises(ArgumentError, match="share: must lie between 0 and 1"):
        Folder("mine", share=1.0)
