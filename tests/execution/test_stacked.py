"""Where stacking could differ from the loop it refuses, and auto chooses the loop."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.execution._pool import Pool
from moebius.execution.auto import Auto, choose
from moebius.execution.loop import Loop
from moebius.execution.stacked import Stacked
from moebius.kit.errors import ArgumentError

loop = Loop()
stacked = Stacked()

SOFT = mb.routers.Soft()(torch.zeros(5, 2))
X = torch.linspace(-1, 1, 20).view(5, 4)


class Scaled(nn.Module):
    """A module whose `str` does not show its factor."""

    def __init__(self, factor):
        super().__init__()
        self.linear, self.factor = nn.Linear(4, 3), factor

    def forward(self, x):
        return self.factor * self.linear(x)


class WithBuffer(nn.Module):
    """A module whose forward reads a buffer."""

    def __init__(self, length):
        super().__init__()
        self.register_buffer("values", torch.arange(length).float())

    def forward(self, x):
        return x + self.values.sum()


class Rectified(mb.experts.Linear):
    """An expert that inherits a product, and overrides the forward."""

    def forward(self, x):
        return super().forward(x).relu()


def expert_with_hook():
    expert = mb.experts.Linear(4, 3)
    expert.linear.register_forward_hook(lambda module, inputs, output: 2 * output)
    return expert


def experts_in_two_modes():
    experts = [nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)) for _ in range(2)]
    experts[0].eval()
    return experts


def experts_with_active_dropout():
    experts = [nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval() for _ in range(2)]
    for expert in experts:
        expert[1].train()
    return experts


REFUSED = {
    "classes": (lambda: [mb.experts.Linear(4, 3), nn.Linear(4, 3)], "their classes differ"),
    "shapes": (lambda: [mb.experts.MLP(4, 3, [5]), mb.experts.MLP(4, 3, [6])], "their parameters' shapes differ"),
    "structures": (
        lambda: [nn.Sequential(nn.Linear(4, 3), activation) for activation in (nn.ReLU(), nn.Tanh())],
        "their structures differ",
    ),
    "settings": (lambda: [Scaled(1.0), Scaled(2.0)], "their structures differ"),
    "modes": (experts_in_two_modes, "their structures differ"),
    "hooks": (lambda: [mb.experts.Linear(4, 3), expert_with_hook()], "experts.1.linear has hooks"),
    "dropout": (lambda: [nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)) for _ in range(2)], "is active dropout"),
    "dropout kept on": (experts_with_active_dropout, "is active dropout"),
    "formats": (
        lambda: [nn.Linear(4, 3), nn.Linear(4, 3).double()],
        "their tensors' formats, devices or kinds differ",
    ),
    "buffers": (lambda: [WithBuffer(2), WithBuffer(3)], "their parameters' shapes differ"),
    "batch norm": (lambda: [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) for _ in range(2)], "batch statistics"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stacking_refuses(name):
    make, reason = REFUSED[name]
    experts = make()
    with pytest.raises(ArgumentError, match=reason) as caught:
        stacked(experts, SOFT, X)
    assert str(caught.value).startswith("execution: stacked ")
    assert caught.value.fix == 'execution="auto"'
    assert choose(Pool(experts), SOFT, X).name == "loop"


def test_a_router_that_selects_is_refused():
    experts = [mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)]
    routing = mb.routers.Argmax()(torch.zeros(5, 2))
    with pytest.raises(ArgumentError, match="needs every expert to see every row: the router selects"):
        stacked(experts, routing, X)
    assert choose(Pool(experts), routing, X).name != "stacked"


def test_inactive_dropout_and_fixed_statistics_are_stacked():
    experts = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).eval() for _ in range(2)]
    assert stacked.refuses(Pool(experts), SOFT, X) is None
    torch.testing.assert_close(stacked(experts, SOFT, X), loop(experts, SOFT, X))


def test_a_subclass_with_its_own_forward_does_not_run_its_parents_product():
    torch.manual_seed(0)
    experts = [Rectified(4, 3), Rectified(4, 3)]
    with pytest.raises(ArgumentError, match=r"experts\.0 is a Rectified"):
        stacked(experts, SOFT, X)
    torch.testing.assert_close(Auto()(experts, SOFT, X), loop(experts, SOFT, X))


def test_experts_of_an_unknown_class_are_called():
    experts = [Scaled(2.0), Scaled(2.0)]
    with pytest.raises(ArgumentError, match=r"experts\.0 is a Scaled, of a class that is not known"):
        stacked(experts, SOFT, X)
    torch.testing.assert_close(Auto()(experts, SOFT, X), loop(experts, SOFT, X))


def test_auto_runs_what_it_chose():
    calls = []

    class RecordingExpert(mb.experts.Linear):
        def forward(self, x):
            calls.append("loop")
            return self.linear(x)

        def rowwise(self, x, layer):
            calls.append("stacked")
            return super().rowwise(x, layer)

    experts = [RecordingExpert(4, 3), RecordingExpert(4, 3)]
    mb.execution.Auto()(experts, SOFT, X)
    assert calls == ["stacked"]
    mb.execution.Auto()(experts, mb.routers.Argmax()(torch.zeros(5, 2)), X)
    assert calls == ["stacked", "loop"]


def test_dropout_that_drops_nothing_is_stacked():
    experts = [nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0)) for _ in range(2)]
    torch.testing.assert_close(stacked(experts, SOFT, X), loop(experts, SOFT, X))


def test_of_unlike_experts_the_equal_ones_run_together():
    calls = []

    class RecordingExpert(mb.experts.Linear):
        def rowwise(self, x, layer):
            calls.append(self)
            return super().rowwise(x, layer)

    experts = [
        RecordingExpert(4, 3),
        nn.Linear(4, 3),
        RecordingExpert(4, 3),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
        nn.Linear(4, 3),
    ]
    routing = mb.routers.Soft()(torch.zeros(5, 5))
    torch.testing.assert_close(stacked(experts, routing, X), loop(experts, routing, X))
    assert calls[:1] == [experts[0]]
    assert len(calls) == 3  # once for both by the stack, and once for each by the loop


def test_a_stack_without_parameters():
    experts = mb.Stack([nn.Tanh(), nn.Tanh()])
    torch.testing.assert_close(stacked(experts, SOFT, X), loop(experts, SOFT, X))


def test_what_follows_a_dense_layer_sees_each_experts_own_column():
    """Merging axes after it would mix experts."""
    experts = mb.Stack([nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)])
    torch.testing.assert_close(stacked(experts, SOFT, X), loop(experts, SOFT, X))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Flatten(0)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2, return_indices=True)),
        lambda: nn.GRU(4, 4),
        lambda: nn.LSTMCell(4, 4),
    ],
)
@pytest.mark.parametrize("pool", [nn.ModuleList, mb.Stack])
def test_what_is_no_tensor_with_its_rows_is_named_as_by_the_loop(pool, make):
    moe = mb.Mixture(mb.gates.Linear(4, 2), pool([make() for _ in range(2)]))
    with pytest.raises(ArgumentError, match=r"experts\.0: the expert, a \w+, must give one tensor") as caught:
        moe(X)
    with pytest.raises(ArgumentError) as by_loop:
        loop(moe.experts, SOFT, X)
    assert str(caught.value) == str(by_loop.value)
