import numpy as np
import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources import Regimes


@pytest.mark.parametrize(("dimensions", "regimes", "names"), [(1, 3, ["x"]), (2, 5, ["x1", "x2"])])
def test_domains_are_the_regimes_and_the_function_is_another_one_in_each(dimensions, regimes, names):
    table = Regimes(dimensions, regimes, rows=4000, noise=0.05).open().read()
    assert list(table.features) == names
    assert table.domain.nunique() == regimes
    x, y = table.features.to_numpy(), table.targets["y"].to_numpy()
    # Planes of single regimes fit those without a wave to the noise; one plane for all rows does not.
    planes = np.c_[x, np.ones(len(x))]

    def error(rows):
        fitted, *_ = np.linalg.lstsq(planes[rows], y[rows], rcond=None)
        return np.sqrt(np.mean(np.square(planes[rows] @ fitted - y[rows])))

    assert error(table.domain == "regime 0") == pytest.approx(0.05, rel=0.15)
    assert error(np.full(len(x), True)) > 0.5


def test_intervals_have_one_width():
    table = Regimes(1, 4, rows=1000).open().read()
    edges = table.features["x"].groupby(table.domain).agg(["min", "max"])
    assert (edges["min"] >= [-1, -0.5, 0, 0.5]).all()
    assert (edges["max"] <= [-0.5, 0, 0.5, 1]).all()


def test_the_rows_are_the_same_on_any_machine():
    data = load_sets([Regimes(rows=100)], 8)
    assert data.fingerprint == load_sets([Regimes(rows=100)], 8).fingerprint
    assert data.fingerprint != load_sets([Regimes(rows=100, seed=1)], 8).fingerprint
    assert (data.domains, data.facts["domains"]) == (tuple(f"regime {number}" for number in range(4)), 4)
    first = Regimes(rows=100).open().read()
    assert first.features["x"].iloc[:2].tolist() == [0.8534376759332933, 0.7685358564839044]
    assert torch.isfinite(data.train.labels).all()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"dimensions": 3}, "dimensions"),
        ({"regimes": 1}, "regimes"),
        ({"dimensions": 2, "regimes": 6}, "regimes"),
        ({"rows": 5}, "rows"),
        ({"noise": -1.0}, "noise"),
        ({"seed": -1}, "seed"),
        ({"test": 1.0}, "test"),
    ],
)
def test_arguments_out_of_range_are_refused(options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        Regimes(**options)
