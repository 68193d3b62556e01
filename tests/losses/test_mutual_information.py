from math import log

import pytest
import torch

from moebius.losses.batch_entropy import batch_entropy
from moebius.losses.mutual_information import mutual_information
from moebius.losses.sample_entropy import sample_entropy
from moebius.routers.soft import Soft

ROUTING = Soft()(torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_worked():
    # A sure row and an undecided one: mean entropy ln 2 / 2, entropy of the mean (3/4, 1/4).
    value = mutual_information(Soft()(torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log()))
    assert value.item() == pytest.approx(log(2) / 2 - 0.75 * log(4 / 3) - 0.25 * log(4))


def test_it_is_the_divergence_of_the_joint_distribution_from_independence():
    joint = ROUTING.probs / 6
    independent = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    torch.testing.assert_close(mutual_information(ROUTING), -(joint * (joint / independent).log()).sum())


def test_it_is_the_sum_of_the_two_entropy_terms():
    torch.testing.assert_close(mutual_information(ROUTING), sample_entropy(ROUTING) + batch_entropy(ROUTING))


def test_rows_tell_no_more_than_there_are_rows():
    two_sure_rows = Soft()(torch.eye(4)[:2].log())
    assert mutual_information(two_sure_rows).item() == pytest.approx(-log(2))
