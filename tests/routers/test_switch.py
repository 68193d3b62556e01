import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.routers.switch import Switch

# Every row prefers expert 0, then 1, then 2; less and less.
SCORES = torch.tensor([[3.0, 2.0, 1.0]]).expand(6, -1)


def test_what_finds_no_room_is_dropped_and_counted():
    routing = Switch(capacity=1.0, jitter=0.0)(SCORES)
    probs = SCORES.softmax(-1)
    assert routing.selection.kept_A.tolist() == [True, True, False, False, False, False]
    torch.testing.assert_close(routing.weights[:2, 0], probs[:2, 0])
    assert (routing.weights[2:] == 0).all()
    assert routing.aux["dropped"] == 4
    assert routing.aux["assigned"].tolist() == [6.0, 0.0, 0.0]


def test_the_next_best_expert_takes_what_the_best_has_no_room_for():
    routing = Switch(capacity=1.0, jitter=0.0, next_best=True)(SCORES)
    assert routing.selection.expert_A.tolist() == [0, 0, 1, 1, 2, 2]
    assert routing.selection.kept_A.all()
    assert routing.aux["dropped"] == 0
    torch.testing.assert_close(routing.weights.amax(-1), SCORES.softmax(-1)[torch.arange(6), [0, 0, 1, 1, 2, 2]])


def test_no_expert_has_more_rows_than_room_and_none_waits_while_there_is_room():
    torch.manual_seed(0)
    for capacity in (0.5, 1.0, 1.25):
        scores = torch.randn(40, 4) + torch.tensor([2.0, 0.0, 0.0, 0.0])
        for next_best in (False, True):
            routing = Switch(capacity=capacity, jitter=0.0, next_best=next_best)(scores)
            loads = (routing.weights != 0).sum(0)
            room = -int(-(capacity * 10) // 1)
            assert (loads <= room).all()
            if next_best and capacity >= 1:
                assert routing.selection.kept_A.all()


def test_in_eval_there_is_room_for_all_unless_asked():
    assert Switch(capacity=1.0).eval()(SCORES).aux["dropped"] == 0
    limited = Switch(capacity=1.0, eval_capacity=2.0).eval()
    assert limited(SCORES).aux["dropped"] == 2
    assert not limited.rows_independent
    assert Switch(capacity=1.0).rows_independent


def test_jitter_is_small_and_only_there_while_training():
    torch.manual_seed(0)
    router, scores = Switch(capacity=None, jitter=0.1), torch.full((1000, 2), 2.0)
    probs = router(scores).probs
    ratio = (probs[:, 0] / probs[:, 1]).log()  # 2 · (noise_0 − noise_1), noises in [0.9, 1.1]
    assert ratio.abs().max() < 0.4
    assert ratio.std() > 0.1
    assert torch.equal(router.eval()(scores).probs, torch.full((1000, 2), 0.5))


def test_worked_where_the_second_best_is_full_too():
    """Room for one row each: the second row finds expert 1 taken, and goes to its third best."""
    probs = torch.tensor([[0.3, 0.6, 0.1], [0.3, 0.5, 0.2], [0.7, 0.2, 0.1]])
    routing = Switch(capacity=1.0, jitter=0.0, next_best=True)(probs.log())
    # Its second best is expert 0, which the third row has asked for as its best.
    assert routing.selection.expert_A.tolist() == [1, 2, 0]
    torch.testing.assert_close(routing.weights.sum(-1), torch.tensor([0.6, 0.2, 0.7]))
    assert routing.aux["assigned"].tolist() == [1.0, 2.0, 0.0]


def test_an_expert_that_is_ruled_out_has_room_for_nobody():
    routing = Switch(capacity=1.0, jitter=0.0, next_best=True)(torch.tensor([[0.0, -torch.inf]] * 2))
    assert routing.selection.kept_A.tolist() == [True, False]
    assert routing.aux["dropped"] == 1


def test_with_room_for_all_no_row_depends_on_another():
    scores = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    weights = Switch(capacity=3.0, jitter=0.0, next_best=True)(scores).weights
    torch.testing.assert_close(weights, Switch(capacity=None, jitter=0.0)(scores).weights)


def test_a_capacity_is_not_rounded_up_for_a_rounding_error():
    """1.1 · 50 is 55.00000000000001 in floating point: a fifth of it is 11 rows an expert, not 12."""
    scores = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]]).expand(50, -1)
    assert Switch(capacity=1.1, jitter=0.0)(scores).aux["dropped"] == 39


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "capacity: needs a number above 0"),
        ({"eval_capacity": -1.0}, "eval_capacity: needs a number above 0"),
        ({"jitter": 1.0}, "jitter: needs a number below 1"),
        ({"jitter": -0.1}, "jitter: needs a number of at least 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Switch(**arguments)
