import pytest

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.folder import Folder


@pytest.fixture
def fill(tmp_path, make_png):
    def fill(part: str, count: int, first: int = 0):
        (tmp_path / "mine" / part).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "mine" / part / f"{number:02}.png").write_bytes(make_png(first + number))

    return fill


def get(tmp_path, **options):
    return load_sets([Folder(str(tmp_path / "mine"), **options)], 4, cache_dir=tmp_path / "cache")


def values(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_train_and_test_folders(tmp_path, fill):
    for part, count, first in (("train/a", 2, 0), ("train/b", 1, 10), ("test/b", 2, 20)):
        fill(part, count, first)
    data = get(tmp_path)
    assert data.classes == ("a", "b")
    assert data.domains == ("mine",)
    assert (values(data.train), data.train.labels.tolist()) == ([0, 1, 10], [0, 0, 1])
    assert (values(data.test), data.test.labels.tolist()) == ([20, 21], [1, 1])


def test_a_share_of_each_class_is_held_out(tmp_path, fill):
    fill("cats", 10)
    fill("dogs", 20, 100)
    data, again = get(tmp_path, share=0.3), get(tmp_path, share=0.3, name="pets")
    assert data.test.labels.bincount().tolist() == [3, 6]
    assert sorted(values(data.train) + values(data.test)) == [*range(10), *range(100, 120)]
    assert values(again.test) == values(data.test)
    assert again.domains == ("pets",)


def test_hidden_and_other_files_are_passed_over(tmp_path, fill):
    fill("a", 5)
    (tmp_path / "mine/a/.hidden.png").write_text("no image")
    (tmp_path / "mine/a/notes.txt").write_text("no image")
    (tmp_path / "mine/.git").mkdir()
    data = get(tmp_path)
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


def test_a_broken_image_is_refused_by_name_and_nothing_left(tmp_path, fill):
    fill("a", 5)
    (tmp_path / "mine/a/03.png").write_text("no image")
    with pytest.raises(DataError, match=r"mine/a/03\.png: the image cannot be decoded: no image in any known format"):
        get(tmp_path)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_a_test_class_that_is_not_trained_on_is_refused(tmp_path, fill):
    fill("train/a", 1)
    fill("test/b", 1)
    with pytest.raises(DataError, match=r"mine/test/b/00\.png: the label 'b' is none of the 1 classes"):
        get(tmp_path)


def test_layouts_that_cannot_be_are_refused(tmp_path, fill):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine: holds no class folders"):
        get(tmp_path)
    fill("a", 1)
    with pytest.raises(DataError, match="class 'a' has a single image"):
        get(tmp_path)
    (tmp_path / "mine/b").mkdir()
    with pytest.raises(DataError, match="mine/b: the class folder holds no images"):
        get(tmp_path)
    fill("train/a", 1)
    with pytest.raises(DataError, match="mine: there is train but no test folder"):
        get(tmp_path)


def test_a_renamed_class_is_another_set(tmp_path, fill):
    fill("a", 5)
    before = get(tmp_path)
    (tmp_path / "mine/a").rename(tmp_path / "mine/b")
    after = get(tmp_path)
    assert after.classes == ("b",)
    assert after.fingerprint != before.fingerprint


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(ArgumentError, match="share: must lie between 0 and 1"):
        Folder("mine", share=1.0)
