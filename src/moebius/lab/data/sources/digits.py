"""scikit-learn's handwritten digits, which need no download."""

from pathlib import Path

import numpy as np

from moebius.lab.data.raw import Contents, Raw, Row, Rows, Source, identify
from moebius.lab.data.stratify import check_share, held_out


class Digits(Source):
    """1,797 real handwritten digits of 8×8 pixels, from the test part of UCI's optical recognition set.

    Pixels of 0 … 16 become round(255/16 · value). The split is stratified and always the same.

    Arguments:
        share: share of each class to test on, 0 to 1; 0.2 gives 1,438 and 359 rows.

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
        """The digits come with scikit-learn; `data_dir` is not looked at."""
        return Raw(identify([], "digits", 1, self.share), self._contents)

    def _contents(self) -> Contents:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = ((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
        labels = bunch.target.astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
        rows = [
            Row(image, int(label), "scikit-learn's digits", index)
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        mark = held_out(labels, self.share)
        train = [row for row, held in zip(rows, mark, strict=True) if not held]
        test = [row for row, held in zip(rows, mark, strict=True) if held]
        return Contents(tuple("0123456789"), Rows(len(train), lambda: train), Rows(len(test), lambda: test))
