"""Handwritten digits that come with scikit-learn and need no download."""

from pathlib import Path

import numpy as np

from moebius.lab.data.raw import Contents, Raw, RawRow, RawRows, Source, hash_content
from moebius.lab.data.stratify import check_share, mark_test_rows


class Digits(Source):
    """1,797 real handwritten digits of 8×8 pixels, from the test part of UCI's optical recognition set.

    A pixel value 0 … 16 becomes round(255/16 · value). The split is stratified and fixed.

    Arguments:
        share: share of each class to test on, strictly between 0 and 1; 0.2 gives 1,438 training and 359 test rows.

    Raises:
        ArgumentError: `share` does not lie between 0 and 1.

    Example:
        >>> Digits().name
        'digits'

    Reference:
        Alpaydin and Kaynak, "Cascading classifiers", Kybernetika 34 (1998).
    """

    name = "digits"

    def __init__(self, share: float = 0.2):
        check_share(share)
        self.share = share

    def open(self, data_dir: Path | None = None) -> Raw:
        """Identify the set. The digits come with scikit-learn, and `data_dir` is ignored."""
        return Raw(hash_content([], "digits", 1, self.share), self._read)

    def _read(self) -> Contents:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = ((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
        labels = bunch.target.astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
        rows = [
            RawRow(image, int(label), "scikit-learn's digits", number)
            for number, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        is_test = mark_test_rows(labels, self.share)
        train = [row for row, held_out in zip(rows, is_test, strict=True) if not held_out]
        test = [row for row, held_out in zip(rows, is_test, strict=True) if held_out]
        return Contents(tuple("0123456789"), RawRows(len(train), lambda: train), RawRows(len(test), lambda: test))
