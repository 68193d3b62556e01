"""Tables that come with scikit-learn and need no download."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.raw import Raw, check_text, hash_content
from moebius.lab.data.tables.table import Table, TableOptions, TableSource

NAMES = ("iris", "wine", "breast_cancer", "diabetes", "digits")


class Sklearn(TableSource):
    """A table that comes with scikit-learn, by its name: no file, no download.

    iris: 150 flowers, 4 numbers, 3 classes. wine: 178 wines, 13 numbers, 3 classes. breast_cancer: 569 tumours, 30
    numbers, 2 classes. diabetes: 442 patients, 10 numbers in their own units, the progression of the disease as a
    number. digits: 1,797 images of 64 pixels as numbers, 10 classes; as images they are of kind `digits`. All columns
    are numbers, and become features as those of kind `csv` do. A table is the only set of its data.

    Arguments:
        name: iris, wine, breast_cancer, diabetes or digits.
        columns: names of the columns that the model sees; null = all.
        drop: names of columns that the model does not see.
        categories: names of columns whose numbers are categories.
        test: share of the rows to test on, the same share of each class, strictly between 0 and 1.
        seed: of the random choice of test rows, at least 0.

    Raises:
        ArgumentError: another name, or a share that does not lie between 0 and 1.

    Example:
        >>> table = Sklearn("breast_cancer").open().read()
        >>> table.features.shape, sorted(table.targets["target"].unique())
        ((569, 30), ['benign', 'malignant'])

    Reference: Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python; the tables are of the UCI
        repository, and diabetes is of Efron, Hastie, Johnstone, Tibshirani 2004, Least Angle Regression.
    """

    example: ClassVar = {"name": "iris"}

    def __init__(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        categories: Sequence[str] = (),
        test: float = 0.2,
        seed: int = 0,
    ):
        self.name = check_text("name", name)
        if name not in NAMES:
            raise ArgumentError("name", f"needs one of {', '.join(NAMES)}", name, did_you_mean(name, NAMES))
        names = (None if columns is None else tuple(columns), tuple(drop), tuple(categories))
        self.options = TableOptions("target", *names, test=test, seed=seed)

    def open(self, data_dir: Path | None = None) -> Raw:
        """Identify the table. It comes with scikit-learn, and `data_dir` is ignored."""
        return Raw(hash_content([], "sklearn", 1, self.name, self.options), self._read)

    def _read(self) -> Table:
        from moebius.lab.data.tables.make_table import make_table
        from sklearn import datasets

        options = {"scaled": False} if self.name == "diabetes" else {}
        bunch = getattr(datasets, f"load_{self.name}")(as_frame=True, **options)
        frame = bunch.frame
        if self.name in ("iris", "wine", "breast_cancer"):
            frame = frame.assign(target=bunch.target_names[frame["target"]])
        return make_table(frame, self.options, f"scikit-learn's {self.name}")
