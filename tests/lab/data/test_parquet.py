import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.parquet import read_parquet

NAMES = ["dark", "light"]


@pytest.fixture
def files(tmp_path, make_parquet, make_png):
    images = [make_png(value) for value in (1, 2, 3)]
    return [make_parquet(tmp_path / f"{name}.parquet", images, [0, 1, 0], NAMES) for name in ("a", "b", "c")]


def test_rows_of_several_files_are_numbered_in_each(files, make_png):
    contents = read_parquet(files[:2], files[2:], None, None)
    train = list(contents.train)
    assert contents.classes == ("dark", "light")
    assert len(contents.train) == len(train) == 6
    assert [row.number for row in train] == [0, 1, 2, 0, 1, 2]
    assert [row.file for row in train[2:4]] == [str(files[0]), str(files[1])]
    assert train[4].image == make_png(2)


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_file_is_named(files, keep):
    files[2].write_bytes(files[2].read_bytes()[:keep])
    with pytest.raises(DataError, match=r"c\.parquet: truncated, or no parquet file"):
        read_parquet(files[:1], files[2:], None, None)


def test_an_overwritten_page_is_reported_when_it_is_read(files):
    content = bytearray(files[0].read_bytes())
    content[4:200] = b"\xff" * 196
    files[0].write_bytes(content)
    contents = read_parquet(files[:1], files[1:2], None, None)
    with pytest.raises(DataError, match=r"a\.parquet: row 0"):
        list(contents.train)


def test_splits_must_have_the_same_columns(files, tmp_path, make_parquet, make_png):
    renamed = make_parquet(tmp_path / "d.parquet", [make_png(1)], [0], NAMES, column="img")
    with pytest.raises(DataError, match=r"d\.parquet: no column is called 'image', as it is in a\.parquet"):
        read_parquet(files[:1], [renamed], None, None)


def test_labels_without_names_are_named_by_the_training_values(tmp_path, make_parquet, make_png):
    train = make_parquet(tmp_path / "train.parquet", [make_png(1)] * 3, [7, 3, 7])
    test = make_parquet(tmp_path / "test.parquet", [make_png(1)], [3])
    contents = read_parquet([train], [test], None, None)
    assert contents.classes == ("3", "7")
    assert [row.label for row in contents.train] == ["7", "3", "7"]


def test_columns_of_one_name_are_refused(files):
    table = pq.read_table(files[0])
    pq.write_table(table.append_column("label", table["label"]), files[0])
    with pytest.raises(DataError, match=r"a\.parquet: 2 columns are called 'label'"):
        read_parquet(files[:1], files[1:], None, None)


def test_an_image_outside_of_the_file_is_refused(files, tmp_path, make_png):
    (tmp_path / "secret.png").write_bytes(make_png(9))
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": make_png(1), "path": "a.png"}]
    pq.write_table(pa.table({"image": rows, "label": ["no", "yes"]}), files[0])
    contents = read_parquet(files[:1], files[1:], None, "label")
    with pytest.raises(DataError, match=r"a\.parquet: row 0: the path .*secret\.png' in the place of the bytes"):
        list(contents.train)


@pytest.mark.parametrize("features", [7, {"label": 7}, {"label": {"_type": "ClassLabel", "names": [1, 2]}}, None])
def test_features_that_cannot_be_read_are_refused(files, features):
    text = "no JSON" if features is None else json.dumps({"info": {"features": features}})
    pq.write_table(pq.read_table(files[0]).replace_schema_metadata({"huggingface": text}), files[0])
    with pytest.raises(DataError, match=r"a\.parquet: its features cannot be read"):
        read_parquet(files[:1], files[1:], None, None)


def test_train_files_with_labels_of_other_types_are_refused(tmp_path, make_parquet, make_png):
    paths = [make_parquet(tmp_path / f"{name}.parquet", [make_png(1)], [name]) for name in (1, "x", 1)]
    with pytest.raises(DataError, match=r"x\.parquet: column 'label' cannot be read as int64, as it is in 1\.parquet"):
        read_parquet(paths[:2], paths[2:], None, None)
