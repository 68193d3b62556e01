from dataclasses import replace
from math import log

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.losses.sample_entropy import sample_entropy
from moebius.losses.selector_entropy import selector_entropy
from moebius.routers.soft import Soft


def routing(selectors):
    return replace(Soft()(torch.zeros(len(selectors), selectors.shape[-1])), aux={"selectors": selectors})


def test_worked():
    # Row 0: a sure selector and an even one; row 1: one even over three of four, one even over all.
    selectors = torch.tensor([[[1.0, 0, 0, 0], [0.5, 0, 0.5, 0]], [[1 / 3, 1 / 3, 1 / 3, 0], [0.25] * 4]])
    assert selector_entropy(routing(selectors)).item() == pytest.approx((log(2) + log(3) + log(4)) / 2)


def test_of_a_single_selector_it_is_the_entropy_of_the_row():
    soft = Soft()(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(selector_entropy(routing(soft.probs.unsqueeze(1))), sample_entropy(soft))


def test_selectors_that_agree_are_no_worse_than_selectors_that_differ():
    same, different = torch.tensor([[[1.0, 0], [1, 0]]]), torch.tensor([[[1.0, 0], [0, 1]]])
    assert selector_entropy(routing(same)).item() == selector_entropy(routing(different)).item() == 0


def test_a_router_without_selectors_is_refused():
    with pytest.raises(ArgumentError, match="dselect_k"):
        selector_entropy(Soft()(torch.zeros(2, 3)))
