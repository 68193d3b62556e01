import datasets
import pyarrow as pa
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.columns import find_columns, find_linked_files, table_rows

IMAGE, CLASS_LABEL = datasets.Image(), datasets.ClassLabel(names=["no", "yes"])


def find(features: dict, labels: list | None = None, **columns):
    return find_columns(datasets.Features(features), lambda name: pa.chunked_array([labels]), "toy", **columns)


def test_columns_are_found_by_type():
    text = datasets.Value("string")
    columns = find({"label": text, "picture": IMAGE, "kind": CLASS_LABEL, "caption": text})
    assert columns[:3] == ("picture", "kind", ("no", "yes"))


def test_names_in_the_arguments_take_precedence():
    columns = find({"a": IMAGE, "b": IMAGE, "coarse": CLASS_LABEL, "fine": CLASS_LABEL}, image="b", label="fine")
    assert columns[:2] == ("b", "fine")


def test_a_label_without_class_names_takes_the_values_as_names():
    assert find({"image": IMAGE, "label": datasets.Value("int64")}, [10, 2, None, 2, -1]).classes == ("2", "10")
    assert find({"image": IMAGE, "label": datasets.Value("string")}, ["b", "a", "b"]).classes == ("a", "b")


def test_plain_bytes_with_a_path_are_images_too():
    encoded = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    assert find({"shot": encoded, "label": CLASS_LABEL}).image == "shot"


@pytest.mark.parametrize(
    ("features", "columns", "message"),
    [
        ({"label": CLASS_LABEL}, {}, "toy: no column holds the image"),
        ({"image": IMAGE}, {}, "toy: no column holds the label"),
        (
            {"a": IMAGE, "b": IMAGE, "label": CLASS_LABEL},
            {},
            "more than one column may hold the image: a, b\n  fix: image: one of a, b",
        ),
        (
            {"image": IMAGE, "label": CLASS_LABEL},
            {"label": "fine"},
            "no column is called 'fine'\n  fix: label: one of image, label",
        ),
    ],
)
def test_an_error_lists_the_columns_to_choose_from(features, columns, message):
    with pytest.raises(DataError, match=message):
        find(features, **columns)


def test_a_column_of_fractions_holds_no_labels():
    with pytest.raises(DataError, match="column 'label' holds double, and labels are whole numbers or text"):
        find({"image": IMAGE, "label": datasets.Value("float64")}, [0.5])


def test_rows_are_numbered_from_the_first(make_png, tmp_path):
    (tmp_path / "a.png").write_bytes(b"there")
    images = [
        {"bytes": b"1", "path": "x"},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        None,
        {"bytes": None, "path": None},
    ]
    table = pa.table({"image": images, "label": [1, 0, None, 1]})
    columns = find({"image": IMAGE, "label": CLASS_LABEL})
    rows = list(table_rows(table, columns, "f", 5, [tmp_path]))
    assert [row.image for row in rows] == [b"1", tmp_path / "a.png", None, None]
    assert [row.label for row in rows] == [1, 0, None, 1]
    assert [row.where for row in rows][:2] == ["f: row 5", "f: row 6"]


@pytest.mark.parametrize("path", ["outside.png", "inside/../outside.png", "inside/link.png", "inside/none.png", "a\0b"])
def test_an_image_elsewhere_is_not_read(path, tmp_path, make_png):
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("outside.png", "inside/a.png"):
        (tmp_path / name).write_bytes(make_png(1))
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    images = [{"bytes": None, "path": str(inside / "a.png")}, {"bytes": None, "path": str(tmp_path / path)}]
    table = pa.table({"image": images, "label": [0, 1]})
    columns = find({"image": IMAGE, "label": CLASS_LABEL})
    with pytest.raises(DataError, match=r"f: row 1: the path .* is no file that belongs to the set"):
        list(table_rows(table, columns, "f", 0, [inside]))
    assert find_linked_files(table, "image", [inside]) == [inside / "a.png"]


@pytest.mark.parametrize("labels", [[[1, 2]], [{"a": 1}], [0.5], [b"x"]])
def test_a_column_of_nested_values_holds_no_labels(labels):
    features = datasets.Features.from_arrow_schema(pa.table({"label": labels}).schema)
    with pytest.raises(DataError, match="and labels are whole numbers or text"):
        find({"image": IMAGE, **features}, labels)
    table = pa.table({"image": [b"1"], "label": labels})
    with pytest.raises(DataError, match=r"f: row 0: the label is a .*, and labels are whole numbers or text"):
        list(table_rows(table, find({"image": IMAGE, "label": CLASS_LABEL}), "f", 0))


@pytest.mark.parametrize("image", [7, [1, 2], "text", {"bytes": "text", "path": None}])
def test_a_column_of_other_values_holds_no_images(image):
    table = pa.table({"image": [image], "label": [0]})
    with pytest.raises(DataError, match="f: row 0: the image is a "):
        list(table_rows(table, find({"image": IMAGE, "label": CLASS_LABEL}), "f", 0))
