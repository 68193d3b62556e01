"""The test rows of a run, and whether those of several runs are the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from moebius.kit.errors import StudyError
from moebius.kit.seals import check_seal
from moebius.lab.report.read_rows import UNREADABLE, check_rows
from moebius.lab.report.run_fix import rewrite_fix

_COLUMNS = ("split", "label", "prediction", "domain", "score")


@dataclass(frozen=True)
class TestRows:
    """What became of each test row.

    Arguments:
        scores: of each row.
        domains: of each row.
        labels, predictions: classes, or numbers; None where a row has several targets.
    """

    scores: Float[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    labels: Shaped[np.ndarray, " T"] | None
    predictions: Shaped[np.ndarray, " T"] | None

    # pytest takes a class of this name for one of tests.
    __test__ = False

    def has_rows_of(self, rows: "TestRows") -> bool:
        """Whether these are the same rows as others, as far as labels and domains tell."""
        if self.labels is None or rows.labels is None or len(np.unique(self.labels)) < 2:
            return False
        return np.array_equal(self.labels, rows.labels) and np.array_equal(self.domains, rows.domains)


def read_test_rows(run: Path) -> TestRows:
    """The test rows in a run's routing.parquet.

    Raises:
        StudyError: the file is missing, cannot be read or lacks a column.
    """
    path = run / "routing.parquet"
    try:
        check_seal(path, rewrite_fix(path))
        check_rows(path)
        present = [name for name in _COLUMNS if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=present, filters=[("split", "==", "test")])
        columns = {name: table[name].to_numpy() for name in table.column_names if name != "split"}
        # Files of early versions have labels and predictions of classes alone.
        scores = columns["score"] if "score" in columns else columns["label"] == columns["prediction"]
        return TestRows(scores.astype(float), columns["domain"], columns.get("label"), columns.get("prediction"))
    except UNREADABLE as error:
        raise StudyError(f"{path}: cannot be read ({error})", rewrite_fix(path)) from None
