import math

import torch

from moebius.routers.soft import Soft


def test_worked():
    weights = Soft()(torch.tensor([[math.log(3.0), 0.0]])).weights
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))


def test_adding_a_constant_to_a_row_changes_nothing():
    scores = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(Soft()(scores + 100).weights, Soft()(scores).weights)


def test_log_weights_stay_finite_where_weights_underflow():
    routing = Soft()(torch.tensor([[0.0, -500.0]]))
    assert routing.weights[0, 1] == 0
    assert routing.log_weights[0, 1] == -500
