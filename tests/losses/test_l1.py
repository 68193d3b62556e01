import pytest
import torch

from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.losses.l1 import l1
from moebius.routers.soft import Soft


def test_worked():
    assert l1(Soft(normalisation="relu")(torch.tensor([[2.0, -1.0], [0.5, 1.5]]))).item() == 2
    # elu of −ln 2 is −0.5.
    assert l1(Soft(normalisation="elu")(torch.tensor([[0.5]]).log())).item() == pytest.approx(0.5)


def test_it_pulls_on_open_gates_all_alike_and_not_on_closed_ones():
    scores = torch.tensor([[2.0, -1.0], [0.5, 1e-3]], requires_grad=True)
    l1(Soft(normalisation="relu")(scores)).backward()
    assert scores.grad.tolist() == [[0.5, 0.0], [0.5, 0.5]]


def test_activations_that_the_router_left_out_count():
    activations = torch.tensor([[2.0, 1.0]])
    weights = torch.tensor([[2.0, 0.0]])
    assert l1(Routing(activations, activations, weights, weights.log(), distribution=False)).item() == 3


def test_a_distribution_is_refused():
    with pytest.raises(ArgumentError, match="kind: relu"):
        l1(Soft()(torch.zeros(2, 3)))
