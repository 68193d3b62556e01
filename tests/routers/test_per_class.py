import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.routers.per_class import PerClass
from moebius.routers.soft import Soft

EXPERTS, CLASSES = 3, 4


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_worked():
    # Classes 0 and 1 of two experts: (3, 1) and (2, 2), of 8 in all.
    routing = PerClass(2)(torch.tensor([[3.0, 1.0, 2.0, 2.0]]).log())
    torch.testing.assert_close(routing.head_weights, torch.tensor([[[[3.0, 2.0], [1.0, 2.0]]]]) / 8)
    torch.testing.assert_close(routing.weights, torch.tensor([[5.0, 3.0]]) / 8)


def test_worked_within_each_class():
    routing = PerClass(2, within_class=True)(torch.tensor([[3.0, 1.0, 2.0, 2.0]]).log())
    torch.testing.assert_close(routing.head_weights, torch.tensor([[[[0.75, 0.5], [0.25, 0.5]]]]))
    torch.testing.assert_close(routing.weights, torch.tensor([[0.625, 0.375]]))


def test_the_mixture_of_probabilities_weighs_each_class_by_itself():
    scores, logits = random(6, CLASSES * EXPERTS), random(6, EXPERTS, CLASSES)
    weights = scores.softmax(-1).view(6, CLASSES, EXPERTS)
    by_hand = torch.einsum("tce,tec->tc", weights, logits.softmax(-1))
    torch.testing.assert_close(mb.LogMixture()(logits, PerClass(CLASSES)(scores)).exp(), by_hand)


def test_the_sum_weighs_each_class_by_itself():
    scores, values = random(6, CLASSES * EXPERTS), random(6, EXPERTS, CLASSES)
    weights = scores.view(6, CLASSES, EXPERTS).softmax(-1)
    by_hand = torch.einsum("tce,tec->tc", weights, values)
    torch.testing.assert_close(mb.WeightedSum()(values, PerClass(CLASSES, within_class=True)(scores)), by_hand)


@pytest.mark.parametrize(("within_class", "size"), [(True, 1.0), (False, CLASSES)])
def test_the_same_scores_for_each_class_are_the_soft_router(within_class, size):
    scores = random(6, EXPERTS)
    routing = PerClass(CLASSES, within_class)(scores.repeat(1, CLASSES))
    soft = Soft()(scores)
    torch.testing.assert_close(routing.weights, soft.weights)
    torch.testing.assert_close(routing.probs, soft.probs)
    torch.testing.assert_close(routing.scores, scores)
    expected = soft.weights[:, None, :, None].expand(6, 1, EXPERTS, CLASSES)
    torch.testing.assert_close(routing.head_weights * size, expected)


@pytest.mark.parametrize("within_class", [True, False])
def test_one_class_is_the_soft_router(within_class):
    scores = random(6, EXPERTS)
    torch.testing.assert_close(PerClass(1, within_class)(scores).weights, Soft()(scores).weights)


def test_what_sums_to_one():
    scores = random(6, CLASSES * EXPERTS)
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(PerClass(CLASSES)(scores).head_weights.sum((1, 2, 3)), ones)
    each = PerClass(CLASSES, within_class=True)(scores).head_weights.sum((1, 2))
    torch.testing.assert_close(each, ones.unsqueeze(1).expand(6, CLASSES))


def test_only_over_the_row_does_a_class_get_more_than_another():
    scores = random(6, CLASSES * EXPERTS)
    raised = scores + torch.tensor([5.0, 0.0, 0.0, 0.0]).repeat_interleave(EXPERTS)
    for within_class in (True, False):
        router = PerClass(CLASSES, within_class)
        same = torch.allclose(router(raised).head_weights, router(scores).head_weights)
        assert same == within_class


@pytest.mark.parametrize("classes", [0, -1])
def test_no_class_is_refused(classes):
    with pytest.raises(ArgumentError, match="classes: needs a whole number of at least 1"):
        PerClass(classes)
