import numpy as np
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.decode import decode_rows
from moebius.lab.data.raw import RawRow, RawRows


def make_rows(*rows: RawRow) -> RawRows:
    return RawRows(len(rows), lambda: rows)


def grey_image(value: int) -> np.ndarray:
    return np.full((2, 2), value, dtype=np.uint8)


def test_images_and_labels_of_all_kinds(make_png, tmp_path):
    (tmp_path / "a.png").write_bytes(make_png(3))
    images, labels = decode_rows(
        make_rows(
            RawRow(grey_image(1), 1, "f", 0),
            RawRow(make_png(2), "no", "f", 1),
            RawRow(tmp_path / "a.png", "yes", "a.png"),
        ),
        ("no", "yes"),
        2,
        "grey",
    )
    assert images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("image", "label", "reason"),
    [
        (grey_image(0), 2, "the label 2 is none of the 2 classes"),
        (grey_image(0), -1, "the label -1 is none of the 2 classes"),
        (grey_image(0), None, "the label is missing"),
        (grey_image(0), "maybe", "the label 'maybe' is none of the 2 classes"),
        (None, 0, "the image is missing"),
        (b"", 0, "the image is missing"),
        (b"hello", 0, "the image cannot be decoded: no image in any known format"),
    ],
)
def test_a_bad_row_is_refused_with_file_row_and_reason(image, label, reason):
    with pytest.raises(DataError, match=f"^f.parquet: row 1: {reason}"):
        decode_rows(
            make_rows(RawRow(grey_image(0), 0, "f.parquet", 0), RawRow(image, label, "f.parquet", 1)),
            ("no", "yes"),
            2,
            "grey",
        )


def test_a_truncated_image_is_refused(make_png):
    with pytest.raises(DataError, match=r"^f.parquet: row 7: the image cannot be decoded"):
        decode_rows(make_rows(RawRow(make_png(0, 32)[:-25], 0, "f.parquet", 7)), ("no",), 2, "grey")
