import datasets
import pyarrow as pa
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.columns import find_columns, table_rows

IMAGE, NAMED = datasets.Image(), datasets.ClassLabel(names=["no", "yes"])


def find(features: dict, values: list | None = None, **given):
    return find_columns(datasets.Features(features), lambda name: pa.chunked_array([values]), "toy", **given)


def test_columns_are_found_by_type():
    text = datasets.Value("string")
    columns = find({"label": text, "picture": IMAGE, "kind": NAMED, "caption": text})
    assert columns[:3] == ("picture", "kind", ("no", "yes"))


def test_names_that_are_given_win():
    columns = find({"a": IMAGE, "b": IMAGE, "coarse": NAMED, "fine": NAMED}, image="b", label="fine")
    assert columns[:2] == ("b", "fine")


def test_a_label_without_class_names_takes_the_values_as_names():
    assert find({"image": IMAGE, "label": datasets.Value("int64")}, [10, 2, None, 2, -1]).classes == ("2", "10")
    assert find({"image": IMAGE, "label": datasets.Value("string")}, ["b", "a", "b"]).classes == ("a", "b")


def test_plain_bytes_with_a_path_are_images_too():
    plain = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    assert find({"shot": plain, "label": NAMED}).image == "shot"


@pytest.mark.parametrize(
    ("features", "given", "message"),
    [
        ({"label": NAMED}, {}, "toy: no column holds the image"),
        ({"image": IMAGE}, {}, "toy: no column holds the label"),
        (
            {"a": IMAGE, "b": IMAGE, "label": NAMED},
            {},
            "more than one column may hold the image: a, b\n  fix: image: one of a, b",
        ),
        (
            {"image": IMAGE, "label": NAMED},
            {"label": "fine"},
            "no column is called 'fine'\n  fix: label: one of image, label",
        ),
    ],
)
def test_what_cannot_be_found_is_told_with_what_there_is(features, given, message):
    with pytest.raises(DataError, match=message):
        find(features, **given)


def test_a_column_of_fractions_holds_no_labels():
    with pytest.raises(DataError, match="column 'label' holds double, no labels"):
        find({"image": IMAGE, "label": datasets.Value("float64")}, [0.5])


def test_rows_are_numbered_from_the_first(make_png, tmp_path):
    (tmp_path / "a.png").write_bytes(b"there")
    images = [
        {"bytes": b"1", "path": "x"},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        None,
        {"bytes": None, "path": "x"},
    ]
    table = pa.table({"image": images, "label": [1, 0, None, 1]})
    columns = find({"image": IMAGE, "label": NAMED})
    rows = list(table_rows(table, columns, "f", 5))
    assert [row.image for row in rows] == [b"1", tmp_path / "a.png", None, None]
    assert [row.label for row in rows] == [1, 0, None, 1]
    assert [row.where for row in rows][:2] == ["f: row 5", "f: row 6"]
