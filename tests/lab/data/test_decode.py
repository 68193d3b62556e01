import numpy as np
import pytest
import torch

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


def test_a_class_for_each_pixel_is_that_of_the_nearest_one():
    pixels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [-100, -100, 2, 2], [-100, -100, 2, 2]])
    rows = make_rows(RawRow(np.zeros((4, 4), np.uint8), pixels, "f", 0))
    for size in (2, 4, 8):
        _, labels = decode_rows(rows, ("a", "b", "c"), size, "grey")
        assert labels.shape == (1, size, size)
        assert labels[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 1, -100, 2]
    assert torch.equal(decode_rows(rows, ("a", "b", "c"), 4, "grey")[1][0], torch.from_numpy(pixels))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (np.full((2, 2), 2), "the label of pixels holds 2, needs .* numbers 0 … 1, or -100 for none"),
        (np.full((2, 2, 1), 0), "the label of pixels has shape"),
        (1, "has a class for each pixel, and rows before it one for the image, or the other way round"),
    ],
)
def test_bad_classes_of_pixels_are_refused(label, reason):
    first, second = (
        RawRow(grey_image(0), each, "f", place) for place, each in enumerate((np.zeros((2, 2), int), label))
    )
    with pytest.raises(DataError, match=f"^f: row 1: {reason}"):
        decode_rows(make_rows(first, second), ("no", "yes"), 2, "grey")


@pytest.mark.parametrize(("count", "reason"), [(3, "the set has 1 of 3 rows"), (10**12, "are too many for the memory")])
def test_rows_that_a_file_counts_and_does_not_hold_are_missed(count, reason):
    with pytest.raises(DataError, match=reason):
        decode_rows(RawRows(count, lambda: [RawRow(grey_image(1), 0, "f", 0)]), ("no",), 64, "rgb")
