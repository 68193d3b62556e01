"""All experts run on all rows."""

import torch
from torch import nn

import moebius as mb
from moebius.execution.dense import Dense

dense = Dense()


class Counting(nn.Module):
    """The identity, which records the numbers of rows of its calls."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return x


def test_every_expert_sees_every_row_whatever_the_router_chose():
    experts = [Counting() for _ in range(3)]
    x = torch.tensor([[1.0], [2.0]])
    selection = mb.Selection(*map(torch.tensor, ([1, 0], [2, 2], [1.0, 1.0], [True, False])))
    scores = torch.zeros(2, 3)
    values = dense(experts, mb.Routing.from_selection(scores, scores.softmax(-1), selection), x)
    assert values.tolist() == [[2.0], [0.0]]
    assert [expert.rows for expert in experts] == [[2], [2], [2]]


def test_lists_of_equal_experts_are_one_product():
    shapes = []

    class RecordingExpert(mb.experts.Linear):
        def rowwise(self, x, layer):
            shapes.append(x.shape)
            return super().rowwise(x, layer)

    moe = mb.Mixture(
        mb.gates.Linear(4, 3), [RecordingExpert(4, 2) for _ in range(3)], mb.routers.TopK(1), execution="dense"
    )
    moe(torch.zeros(5, 4))
    assert shapes == [(5, 4)]
