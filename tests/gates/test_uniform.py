import torch

from moebius.gates.uniform import Uniform
from moebius.routers.soft import Soft


def test_worked():
    assert Uniform(experts=3)(torch.rand(2, 5)).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_softmax_makes_equal_weights_of_it():
    weights = Soft()(Uniform(experts=4)(torch.rand(3, 5))).weights
    torch.testing.assert_close(weights, torch.full((3, 4), 0.25))


def test_rows_are_images_or_tokens():
    gate = Uniform(experts=2)
    assert gate(torch.rand(6, 3, 8, 8)).shape == (6, 2)
    assert gate(torch.rand(6, 5, 8)).shape == (6, 5, 2)


def test_it_has_nothing_to_train():
    assert not list(Uniform(experts=2).parameters())
