"""Tests check the types of what the package's functions get: the checks of conftest.py are there and refuse."""

import pytest
import torch

import moebius as mb
from moebius.kit.registry import find
from moebius.losses import batch_entropy

LIMIT = 100


def test_a_function_without_shapes_is_checked():
    with pytest.raises(Exception, match=r"violates type hint|Type-check error"):
        find("gates", 3)


def test_shapes_are_checked_at_the_first_calls_of_a_test():
    combine, outputs = mb.WeightedSum(), torch.rand(2, 3, 4)
    routing = mb.routers.Soft()(torch.rand(2, 3))
    for _ in range(LIMIT - 1):
        combine(outputs, routing)
    with pytest.raises(Exception, match="Type-check error"):
        combine("outputs", routing)


@pytest.mark.parametrize("_", range(2))
def test_every_test_counts_its_calls_anew(_):
    routing = mb.routers.Soft()(torch.rand(2, 3))
    with pytest.raises(Exception, match="Type-check error"):
        batch_entropy("routing")
    for _ in range(LIMIT):
        batch_entropy(routing)
    with pytest.raises(AttributeError):
        batch_entropy("routing")
