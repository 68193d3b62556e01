import os

from moebius.lab.data.raw import RawRow, RawRows, hash_content


def test_where_names_file_and_row():
    assert RawRow(None, None, "a.parquet", 3).where == "a.parquet: row 3"
    assert RawRow(None, None, "a.png").where == "a.png"


def test_rows_can_be_read_twice():
    rows = RawRows(2, lambda: (RawRow(None, label, "a") for label in (0, 1)))
    assert [row.label for row in rows] == [row.label for row in rows] == [0, 1]
    assert len(rows) == 2


def test_identity_is_of_the_bytes_not_of_name_or_time(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"Same")
    os.utime(tmp_path / "b", (0, 0))
    assert hash_content([tmp_path / "a"], 1) == hash_content([tmp_path / "b"], 1)
    assert hash_content([tmp_path / "a"], 1) != hash_content([tmp_path / "c"], 1)
    assert hash_content([tmp_path / "a"], 1) != hash_content([tmp_path / "a"], 2)


def test_identity_depends_on_where_one_file_ends(tmp_path):
    for name, content in (("a", b"12"), ("b", b"3"), ("c", b"1"), ("d", b"23")):
        (tmp_path / name).write_bytes(content)
    assert hash_content([tmp_path / "a", tmp_path / "b"]) != hash_content([tmp_path / "c", tmp_path / "d"])
