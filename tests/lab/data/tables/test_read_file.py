import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.tables.read_file import find_file, read_csv, read_parquet_table


@pytest.fixture
def write(tmp_path):
    def write_text(text: str | bytes):
        path = tmp_path / "rows.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_text


def test_types_are_those_of_the_values(write):
    frame = read_csv(write("a,b,c,d\n1,x,True,?\n2.5,,False,3\n"), ",", ["?"])
    assert frame.dtypes.map(lambda kind: kind.kind).to_dict()["a"] == "f"
    assert frame["b"].isna().tolist() == [False, True]
    assert (frame["c"].tolist(), frame["d"].isna().tolist()) == ([True, False], [True, False])


def test_a_separator_and_a_mark_at_the_beginning(write):
    frame = read_csv(write("﻿a;b\n1;2,5\n"), ";", [])
    assert list(frame) == ["a", "b"]
    assert frame["b"].tolist() == ["2,5"]


@pytest.mark.parametrize(
    ("text", "rule", "fix"),
    [
        ("", "the file is empty", "path: A FILE WITH ROWS"),
        ("a,b\n", "the table has no rows", "path: A FILE WITH ROWS"),
        ("a,b,a\n1,2,3\n", "2 columns are called 'a'", "rename one of the columns 'a' in a copy of the file"),
        ("a,b\n1,2\n1,2,3\n", "cannot be read", "separator"),
        (b"a,b\n\xff\xfe,1\n", "is no text in UTF-8", "save a copy of the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(write, text, rule, fix):
    path = write(text)
    with pytest.raises(DataError) as caught:
        read_csv(path, ",", [])
    assert caught.value.message.startswith(f"{path}: {rule}")
    assert fix in caught.value.fix
    assert path.exists()


def test_parquet_keeps_types_and_named_indices(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"])}, index=pd.Index(["p", "q"], name="key"))
    frame.to_parquet(tmp_path / "rows.parquet")
    read = read_parquet_table(tmp_path / "rows.parquet")
    assert set(read) == {"a", "b", "key"}
    assert read["b"].dtype == "category"
    assert read.index.tolist() == [0, 1]


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="truncated, or no parquet file"):
        read_parquet_table(path)
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match="2 columns are called 'a'"):
        read_parquet_table(path)
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    with pytest.raises(DataError, match="the table has no rows"):
        read_parquet_table(path)


def test_files_are_searched_here_and_then_in_the_data_folder(tmp_path, monkeypatch):
    here, data = tmp_path / "here", tmp_path / "data"
    for folder in (here, data):
        folder.mkdir()
    monkeypatch.chdir(here)
    (data / "rows.csv").write_text("a\n1\n")
    assert find_file("rows.csv", data) == data / "rows.csv"
    (here / "rows.csv").write_text("a\n1\n")
    assert find_file("rows.csv", data).resolve() == here / "rows.csv"
    assert find_file(str(data / "rows.csv"), None) == data / "rows.csv"
    with pytest.raises(DataError) as caught:
        find_file("none.csv", data)
    assert str(here / "none.csv") in caught.value.message
    assert str(data / "none.csv") in caught.value.message
    assert caught.value.fix


def test_a_file_of_an_installed_package_is_found_without_importing_it():
    path = find_file("datasets/data/iris.csv", None, "sklearn")
    assert path.read_text().startswith("150,4,setosa")
    with pytest.raises(DataError, match="the package 'sklearn' ships no such file"):
        find_file("nothing.csv", None, "sklearn")
    with pytest.raises(DataError, match="the package 'no_such_package', which ships it, is not installed") as caught:
        find_file("a.csv", None, "no_such_package")
    assert caught.value.fix == "pip install no_such_package"
