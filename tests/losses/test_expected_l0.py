from dataclasses import replace

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.losses.expected_l0 import expected_l0
from moebius.routers.soft import Soft


def routing(chances):
    return replace(Soft()(torch.zeros(chances.shape)), aux={"open": chances})


def test_worked():
    assert expected_l0(routing(torch.tensor([[0.9, 0.1, 0.2], [0.0, 0.3, 1.0]]))).item() == pytest.approx(2.5 / 6)


def test_it_is_the_mean_share_of_gates_that_open():
    random = torch.Generator().manual_seed(0)
    chances = torch.rand(50, 4, generator=random)
    opened = (torch.rand(2000, 50, 4, generator=random) < chances).float().mean()
    assert expected_l0(routing(chances)).item() == pytest.approx(opened.item(), abs=0.005)


def test_a_router_whose_gates_do_not_open_by_chance_is_refused():
    with pytest.raises(ArgumentError, match="hard_concrete"):
        expected_l0(Soft()(torch.zeros(2, 3)))
