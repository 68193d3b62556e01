"""Rows of a gate for the tests of measures."""

import numpy as np
import pytest
import torch

from moebius.lab.diagnostics import RoutedRows


@pytest.fixture
def make_rows():
    """Rows from arrays or lists: weights, groups by name, and other fields."""

    def make(weights, k=0, names=None, groups=None, **fields):
        groups = {by: torch.tensor(np.asarray(values)) for by, values in (groups or {}).items()}
        tensors = {
            name: torch.as_tensor(np.asarray(values, np.float32 if name != "kept" else bool))
            for name, values in fields.items()
        }
        return RoutedRows(torch.as_tensor(np.asarray(weights)), k=k, groups=groups, names=names or {}, **tensors)

    return make
