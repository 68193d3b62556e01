from dataclasses import replace

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.losses.load import load
from moebius.routers.soft import Soft


def routing(chances):
    chances = torch.tensor(chances)
    return replace(Soft()(torch.zeros_like(chances)), aux={"load": chances})


def test_worked():
    # Expected rows 1.5, 0.5 and 1: mean 1, population variance (0.25 + 0.25) / 3.
    assert load(routing([[1.0, 0.0, 0.5], [0.5, 0.5, 0.5]])).item() == pytest.approx(1 / 6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_when_every_row_chooses_the_same_k_it_is_experts_over_k_less_one(k):
    assert load(routing([[1.0] * k + [0.0] * (4 - k)] * 3)).item() == pytest.approx(4 / k - 1)


def test_a_router_without_an_estimate_is_refused_with_a_way_out():
    with pytest.raises(ArgumentError, match=r"noisy_top_k, k: 2}, or the loss switch_balance"):
        load(Soft()(torch.zeros(3, 2)))


def test_a_single_expert_has_nothing_to_balance():
    assert load(Soft()(torch.randn(3, 1))).item() == 0
    assert load(routing([[1.0], [0.5]])).item() == 0
