from math import log

import pytest
import torch
from torch.nn import functional as F

from moebius.losses.batch_entropy import batch_entropy
from moebius.losses.uniform_kl import uniform_kl
from moebius.routers.soft import Soft

SCORES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_worked():
    # Mean (3/4, 1/4): 3/4 ln(3/2) + 1/4 ln(1/2).
    value = uniform_kl(Soft()(torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log()))
    assert value.item() == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))


def test_it_is_the_divergence_and_the_batch_entropy_shifted():
    routing = Soft()(SCORES)
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    expected = F.kl_div(uniform.log(), routing.probs.mean(0), reduction="sum")
    torch.testing.assert_close(uniform_kl(routing), expected)
    torch.testing.assert_close(uniform_kl(routing), batch_entropy(routing) + log(4))
