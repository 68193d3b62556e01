import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.shards import find_shards


def test_the_files_of_a_split_in_order(tmp_path):
    names = [
        "train-00001-of-00002.parquet",
        "train-00000-of-00002.parquet",
        "test.parquet",
        "training.parquet",
        "train.csv",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_shards(tmp_path, "train")] == sorted(names[:2])
    assert [path.name for path in find_shards(tmp_path, "test")] == ["test.parquet"]
    assert find_shards(tmp_path / "nowhere", "train") == []


def test_a_missing_shard_is_noticed(tmp_path):
    (tmp_path / "train-00000-of-00002.parquet").touch()
    with pytest.raises(DataError, match="train has 1 of 2 parquet files"):
        find_shards(tmp_path, "train")
