import math

import pytest
import torch

from moebius.gates.domain import Domain
from moebius.kit.errors import ArgumentError
from moebius.routers.argmax import Argmax
from moebius.routers.soft import Soft

X = torch.rand(3, 4)


def test_worked():
    scores = Domain(domains=2, experts=2)(X, {"domain": torch.tensor([1, 0, 1])})
    assert scores.tolist() == [[-math.inf, 0.0], [0.0, -math.inf], [-math.inf, 0.0]]


@pytest.mark.parametrize("router", [Soft(), Argmax()])
def test_a_row_gets_all_of_its_domains_expert(router):
    domain = torch.tensor([2, 0, 1])
    weights = router(Domain(domains=3, experts=3)(X, {"domain": domain})).weights
    assert torch.equal(weights, torch.eye(3)[domain])


def test_domains_and_experts_must_agree_and_the_error_names_both():
    with pytest.raises(ArgumentError, match=r"^experts: .*per domain, and the data has 2, got 3") as caught:
        Domain(domains=2, experts=3)
    assert "2 experts" in caught.value.fix


@pytest.mark.parametrize("context", [None, {}, {"label": torch.tensor([0, 1, 1])}])
def test_without_domains_the_error_says_how_to_pass_them(context):
    with pytest.raises(ArgumentError, match="needs each row's domain") as caught:
        Domain(domains=2, experts=2)(X, context)
    assert "context={'domain': domain}" in caught.value.fix


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (torch.tensor([0, 1]), "one domain for each of 3 rows"),
        (torch.tensor([0.0, 1.0, 1.0]), "needs whole numbers"),
        (torch.tensor([0, 1, 2]), "needs numbers from 0 to 1, got 2"),
        (torch.tensor([0, -1, 1]), "needs numbers from 0 to 1, got -1"),
    ],
)
def test_domains_that_cannot_be_are_refused(domain, message):
    with pytest.raises(ArgumentError, match=message):
        Domain(domains=2, experts=2)(X, {"domain": domain})
