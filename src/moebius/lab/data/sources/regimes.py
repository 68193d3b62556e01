"""A function that is another one in each regime of its input, drawn by a generator: no file, no download."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import MOST_DRAWN, Raw, hash_content
from moebius.lab.data.stratify import check_share
from moebius.lab.data.tables.table import Table, TableOptions, TableSource

MOST_REGIMES = 1000


class Regimes(TableSource):
    """Regression with known regimes: y = f_r(x) + noise, where the place of x tells the regime r, and f_r the function.

    In one dimension regimes are intervals of [−1, 1] of one width; in two they are the cells of a square around the
    corners and the middle of it. A function is a plane, to which every second regime adds a triangle wave; it jumps
    where regimes meet. The regime of a row is its domain: figures show which expert takes which regime, and the gate
    `domain` is the gate that knows it.

    The generator uses only additions, multiplications and divisions, whose results IEEE 754 fixes to the bit: the rows
    are the same on any machine.

    Arguments:
        dimensions: of x, 1 or 2.
        regimes: their number, 2 to 1000; at most 5 in two dimensions.
        rows: training and test rows together, 10 to 1,000,000.
        noise: standard deviation of the noise, at least 0; that of the functions is about 1.
        seed: of the functions and the rows, at least 0.
        test: share of the rows to test on, strictly between 0 and 1.

    Raises:
        ArgumentError: an argument outside its range.

    Example:
        >>> table = Regimes(rows=100).open().read()
        >>> list(table.features), sorted(table.domain.unique())
        (['x'], ['regime 0', 'regime 1', 'regime 2', 'regime 3'])

    Reference: ours.
    """

    name = "regimes"

    def __init__(
        self,
        dimensions: int = 1,
        regimes: int = 4,
        rows: int = 3000,
        noise: float = 0.1,
        seed: int = 0,
        test: float = 0.2,
    ):
        if dimensions not in (1, 2):
            raise ArgumentError("dimensions", "needs 1 or 2", dimensions, "dimensions: 1")
        if positive_integer("regimes", regimes, MOST_REGIMES) < 2 or (dimensions == 2 and regimes > len(_CENTRES)):
            rule = "needs at least 2" + (f", and at most {len(_CENTRES)} in two dimensions" if dimensions == 2 else "")
            raise ArgumentError("regimes", rule, regimes, "regimes: 4")
        if positive_integer("rows", rows, MOST_DRAWN) < 10:
            raise ArgumentError("rows", "needs at least 10", rows, "rows: 3000")
        if not 0 <= noise < float("inf"):
            raise ArgumentError("noise", "needs a number of at least 0", noise, "noise: 0.1")
        if isinstance(seed, bool) or seed < 0:
            raise ArgumentError("seed", "must be at least 0", seed, "seed: 0")
        self.dimensions, self.regimes, self.rows, self.noise, self.seed = dimensions, regimes, rows, noise, seed
        self.test = check_share(test, "test")

    @property
    def domain_count(self) -> int:
        """One for each regime."""
        return self.regimes

    def open(self, data_dir: Path | None = None) -> Raw:
        """Identify the table. Its rows are drawn when they are read, and `data_dir` is ignored."""
        options = (self.dimensions, self.regimes, self.rows, self.noise, self.seed, self.test)
        return Raw(hash_content([], "regimes", 1, *options), self._read)

    def _read(self) -> Table:
        import pandas as pd

        from moebius.lab.data.tables.make_table import make_table

        generator = np.random.default_rng([self.seed, self.dimensions, self.regimes])
        slopes = 4 * generator.random((self.regimes, self.dimensions)) - 2
        offsets, frequencies = 3 * generator.random(self.regimes) - 1.5, 0.7 + generator.random(self.regimes)
        x = 2 * generator.random((self.rows, self.dimensions)) - 1
        regime = self._regime(x)
        waves = np.where(regime % 2 == 1, 2 * _triangle(frequencies[regime] * x.sum(1)) - 1, 0.0)
        # The sum of three uniform numbers is nearly normal, and takes no logarithm, as a normal generator does.
        noise = self.noise * 2 * (generator.random((3, self.rows)).sum(0) - 1.5)
        y = offsets[regime] + (slopes[regime] * x).sum(1) + waves + noise
        names = ["x"] if self.dimensions == 1 else ["x1", "x2"]
        regime_names = np.array([f"regime {number}" for number in range(self.regimes)], dtype=object)
        frame = pd.DataFrame({**dict(zip(names, x.T, strict=True)), "y": y, "regime": regime_names[regime]})
        options = TableOptions("y", target_type="numbers", test=self.test, seed=self.seed, domain="regime")
        return make_table(frame, options, "regimes")

    def _regime(self, x: Float[np.ndarray, "T D"]) -> Int[np.ndarray, " T"]:
        if self.dimensions == 1:
            return np.minimum(np.floor((x[:, 0] + 1) / 2 * self.regimes), self.regimes - 1).astype(np.int64)
        return np.square(x[:, None] - _CENTRES[None, : self.regimes]).sum(2).argmin(1)


# Of the cells in two dimensions: not on a grid, so that cells have unlike sizes and no border follows an axis.
_CENTRES = np.array([[-0.6, -0.5], [0.5, -0.65], [-0.45, 0.6], [0.65, 0.5], [0.05, 0.0]])


def _triangle(t: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """The triangle wave |2 (t − ⌊t⌋) − 1|, from 0 to 1."""
    return np.abs(2 * (t - np.floor(t)) - 1)
