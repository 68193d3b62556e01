import pytest
import torch
from sklearn.datasets import load_digits

from moebius.lab.data import load_sets
from moebius.lab.data.sources.digits import Digits


def test_values_of_0_to_16_become_0_to_255(tmp_path):
    data = load_sets([Digits()], 8, cache_dir=tmp_path)
    images = torch.cat([data.train.images, data.test.images])
    assert sorted(images.unique().tolist()) == [round(value * 255 / 16 + 1e-9) for value in range(17)]
    assert images.double().mean().item() * 16 / 255 == pytest.approx(load_digits().images.mean(), abs=0.01)


def test_the_split_is_stratified(tmp_path):
    data = load_sets([Digits(0.5)], 8, cache_dir=tmp_path)
    difference = data.train.labels.bincount() - data.test.labels.bincount()
    assert difference.abs().max() <= 1
    assert len(data.train) + len(data.test) == 1797


def test_the_first_digit_is_a_zero(tmp_path):
    rows = {row.number: row for split in Digits().open().read()[1:] for row in split}
    assert len(rows) == 1797
    assert rows[0].label == 0
    assert rows[0].image[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # scikit-learn's 0 0 5 13 9 1 0 0
