"""Each assignment is computed with the weights of its expert."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.execution._pool import Pool
from moebius.execution.gather import Gather
from moebius.kit.errors import ArgumentError

gather = Gather()


def test_one_row_through_two_experts_is_these_two_by_hand():
    torch.manual_seed(0)
    moe = mb.layers.SparseFFN(6, 5, experts=16, k=2, execution="gather")
    x = torch.randn(1, 6)
    probs, experts = moe.mixture.gate(x).softmax(-1)[0].topk(2)
    by_hand = sum(
        weight * moe.mixture.experts[int(e)](x) for weight, e in zip(probs / probs.sum(), experts, strict=True)
    )
    torch.testing.assert_close(moe(x), by_hand)


class Doubled(mb.experts.Linear):
    """An expert whose forward is not what the `rowwise` of its parent computes."""

    def forward(self, x):
        return 2 * super().forward(x)


def stack_with_hook():
    stack = mb.Stack([nn.Linear(4, 3) for _ in range(2)])
    stack[1].register_forward_hook(lambda *_: None)
    return stack


REFUSED = {
    "a list": (lambda: [nn.Linear(4, 3) for _ in range(2)], "needs experts that share stacked parameters"),
    "another module": (
        lambda: mb.Stack([nn.LayerNorm(4) for _ in range(2)]),
        "needs experts of dense layers alone: experts is a ",
    ),
    "another forward": (
        lambda: mb.Stack([Doubled(4, 3) for _ in range(2)]),
        "needs experts of dense layers alone: experts is a ",
    ),
    "hooks": (stack_with_hook, "needs experts of dense layers alone: experts.1 has hooks"),
    "dropout": (
        lambda: mb.Stack([mb.experts.MLP(4, 3, [5], dropout=0.5) for _ in range(2)]),
        "needs experts of dense layers alone: experts.network.drop is active dropout",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses(name):
    make, reason = REFUSED[name]
    experts, x = make(), torch.zeros(2, 4)
    routing = mb.routers.Argmax()(torch.zeros(2, 2))
    assert Pool(experts).refuses_rows(x).startswith(reason)
    with pytest.raises(ArgumentError, match=f"^execution: gather {reason}") as caught:
        gather(experts, routing, x)
    assert caught.value.fix == 'execution="auto"'


def test_inactive_dropout_is_no_hindrance_and_rows_of_several_vectors_are():
    experts = mb.Stack([mb.experts.MLP(4, 3, [5], dropout=0.5) for _ in range(2)])
    assert Pool(experts.eval()).refuses_rows(torch.zeros(2, 4)) is None
    assert Pool(experts).refuses_rows(torch.zeros(2, 2, 2)) is None
    assert Pool(experts).refuses_rows(torch.zeros(2, 7, 4)).startswith("needs rows that are vectors")


def test_axes_are_merged_at_the_beginning_alone():
    """After a dense layer the shape of a row would depend on the execution."""
    first = mb.Stack([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)])
    later = mb.Stack([nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)])
    partly = mb.Stack([nn.Sequential(nn.Flatten(2), nn.Linear(4, 3)) for _ in range(2)])
    assert Pool(first).refuses_rows(torch.zeros(2, 2, 2)) is None
    assert Pool(later).refuses_rows(torch.zeros(2, 4)) is not None
    assert Pool(partly).refuses_rows(torch.zeros(2, 1, 2, 2)) is not None
