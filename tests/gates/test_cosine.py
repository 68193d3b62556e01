import math

import pytest
import torch

from moebius.gates.cosine import Cosine
from moebius.kit.errors import ArgumentError


def filled(projection, directions, temperature):
    gate = Cosine(2, len(directions), temperature=temperature)
    with torch.no_grad():
        gate.projection.weight.copy_(torch.tensor(projection))
        gate.directions.copy_(torch.tensor(directions))
    return gate


def test_worked():
    # W x = (3, 4): cosines with (1, 0), (0, −2) and (3, 4) are 3/5, −4/5 and 1; over τ = 1/2.
    gate = filled([[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, -2.0], [3.0, 4.0]], 0.5)
    torch.testing.assert_close(gate(torch.tensor([[1.0, 2.0]])), torch.tensor([[1.2, -1.6, 2.0]]))


def test_how_long_rows_and_directions_are_has_no_say():
    gate, x = Cosine(8, 4).double(), torch.randn(5, 8, dtype=torch.float64)
    before = gate(x)
    torch.testing.assert_close(gate(7 * x), before)
    with torch.no_grad():
        gate.directions.mul_(torch.tensor([[0.5], [2.0], [30.0], [1.0]]))
    torch.testing.assert_close(gate(x), before)


def test_scores_are_bounded_by_the_temperature():
    gate = Cosine(8, 6, dim=2, temperature=0.1)
    scores = gate(1e3 * torch.randn(200, 8))
    assert scores.abs().max() <= 10 * (1 + 1e-5)
    assert scores.abs().max() > 9  # 1200 cosines in the plane: some are near 1


def test_the_learned_temperature_stops_at_one_hundredth():
    gate, x = Cosine(8, 4), torch.randn(5, 8)
    with torch.no_grad():
        gate.log_temperature.fill_(math.log(0.01))
        coldest = gate(x)
        gate.log_temperature.fill_(-50.0)
    torch.testing.assert_close(gate(x), coldest)
    with pytest.raises(ArgumentError, match=r"temperature: needs a number of at least 0\.01, got 0\.005"):
        Cosine(8, 4, temperature=0.005)


def test_a_row_of_zeros_scores_zero_with_finite_gradients():
    gate, x = Cosine(4, 3), torch.zeros(2, 4, requires_grad=True)
    scores = gate(x)
    assert scores.tolist() == [[0.0, 0.0, 0.0]] * 2
    (scores * torch.arange(3)).sum().backward()
    assert all(value.grad.isfinite().all() for value in (x, *gate.parameters()))


@pytest.mark.parametrize(("experts", "dim"), [(1, 2), (4, 2), (16, 8), (33, 16)])
def test_half_as_many_dimensions_as_experts(experts, dim):
    assert Cosine(8, experts).directions.shape == (experts, dim)


def test_tokens_keep_their_batch_axes():
    gate, x = Cosine(4, 3), torch.rand(2, 5, 4)
    torch.testing.assert_close(gate(x)[1, 2], gate(x[1, 2]))
