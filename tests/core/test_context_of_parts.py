"""A gate or an expert whose `forward` has a parameter `context` receives the values of its rows."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.row_context import current_context
from moebius.kit.errors import ArgumentError

ROWS = 12
X = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NUMBERS = torch.arange(ROWS, dtype=torch.float64)
ROUTERS = {
    "soft": mb.routers.Soft,
    "top_1": lambda: mb.routers.TopK(1),
    "top_2": lambda: mb.routers.TopK(2),
    "switch": lambda: mb.routers.Switch(capacity=1.0),
    "choice": lambda: mb.routers.ExpertChoice(1.0),
    "heads": lambda: mb.routers.Heads(mb.routers.TopK(1), 2),
}


class NumberExpert(nn.Module):
    """The numbers of its rows times a factor, plus the rows; fails where the context has other rows."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))

    def compute(self, x, context):
        assert len(context["number"]) == len(x)
        return self.factor * context["number"].unsqueeze(-1) + x


class PositionalExpert(NumberExpert):
    def forward(self, x, context):
        return self.compute(x, context)


class KeywordExpert(NumberExpert):
    def forward(self, x, *, context=None):
        return self.compute(x, context)


class AskingExpert(NumberExpert):
    """Computes the same, but asks the library for the context."""

    def forward(self, x):
        return self.compute(x, current_context().local_values())


def make_experts(kind, container):
    experts = [kind(factor) for factor in (1.0, 2.0, 4.0)]
    if container == "adapter":
        return [mb.experts.Adapter(expert) for expert in experts]
    if container == "mixture":
        return [mb.Mixture(mb.gates.Linear(4, 2), [expert, kind(8.0)], mb.routers.TopK(1)) for expert in experts]
    if container == "sequential":
        return [nn.Sequential(nn.Identity(), inner) for inner in make_experts(kind, "mixture")]
    return mb.Stack(experts) if container == "stack" else experts


def make_mixture(kind, container, router_name="top_1", execution="auto", combine=None):
    torch.manual_seed(0)
    router = ROUTERS[router_name]()
    gate = mb.gates.Linear(4, router.gate_outputs(3))
    return mb.Mixture(gate, make_experts(kind, container), router, combine, execution).double()


def gradients(moe, y):
    return torch.autograd.grad(y.square().sum(), list(moe.parameters()), allow_unused=True)


@pytest.mark.parametrize("execution", ["auto", "loop", "sorted", "dense"])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("container", ["list", "stack", "adapter", "mixture", "sequential"])
@pytest.mark.parametrize("kind", [PositionalExpert, KeywordExpert])
def test_each_expert_is_told_of_its_own_rows(kind, container, router, execution):
    """Its outputs are those of an expert that asks for the context, which the next test works out by hand."""
    moe, reference = (
        make_mixture(kind, container, router, execution),
        make_mixture(AskingExpert, container, router, execution),
    )
    y, expected = moe(X, context={"number": NUMBERS}), reference(X, context={"number": NUMBERS})
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(moe, y), gradients(reference, expected))
    with mb.context(number=NUMBERS):
        torch.testing.assert_close(moe(X), y)


@pytest.mark.parametrize("router", ["soft", "top_1", "top_2", "switch", "choice"])
def test_worked_by_hand(router):
    moe = make_mixture(PositionalExpert, "list", router)
    with mb.record(moe) as log:
        y = moe(X, context={"number": NUMBERS})
    weights = log[""][0].weights
    factor = (weights * torch.tensor([1.0, 2.0, 4.0])).sum(1, keepdim=True)
    torch.testing.assert_close(y, factor * NUMBERS.unsqueeze(1) + weights.sum(1, keepdim=True) * X)


def test_each_expert_sees_just_the_rows_it_was_sent():
    row_numbers = []

    class RecordingLinear(nn.Linear):
        def forward(self, x, context):
            row_numbers.append(context["number"].tolist())
            return super().forward(x)

    moe = mb.Mixture(mb.gates.Domain(3, 3), [RecordingLinear(4, 2) for _ in range(3)], mb.routers.Argmax()).double()
    domain = torch.tensor([2, 0, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2])
    moe(X, context={"number": NUMBERS, "domain": domain})
    assert row_numbers == [[1, 4, 8, 9], [3, 7, 10], [0, 2, 5, 6, 11]]


def test_a_stack_of_such_experts_runs_one_by_one_and_says_so():
    for router in ("soft", "top_1"):
        moe = make_mixture(PositionalExpert, "stack", router)
        name, reason = moe.chosen(X, context={"number": NUMBERS})
        assert name in ("loop", "sorted")
        assert "PositionalExpert" in reason
    moe = mb.Mixture(mb.gates.Linear(4, 2), mb.Stack([PosingExpert(4, 3) for _ in range(2)]))
    assert moe.chosen(X.float()).name == "loop"


class PosingExpert(nn.Linear):
    """Claims to be a class of torch, and takes a context all the same."""

    __module__ = "torch.nn.modules.linear"

    def forward(self, x, context=None):
        return super().forward(x) if context is None else super().forward(x) + context["number"].unsqueeze(-1)


@pytest.mark.parametrize("router", ["soft", "top_1"])
def test_the_gate_is_told_of_all_rows_and_of_those_of_a_branch(router):
    class Gate(nn.Module):
        def forward(self, x, *, context):
            row_numbers.append(context["number"].tolist())
            return torch.stack([context["number"], 6 - context["number"]], 1)

    row_numbers = []
    inner = mb.Mixture(Gate(), [nn.Identity(), nn.Identity()], ROUTERS[router]())
    outer = mb.Mixture(Gate(), [inner, nn.Sequential(nn.Identity(), inner)], mb.routers.TopK(1))
    outer(X, context={"number": NUMBERS})
    assert row_numbers == [NUMBERS.tolist(), NUMBERS[3:].tolist(), NUMBERS[:3].tolist()]
    row_numbers.clear()
    mb.Mixture(mb.experts.Adapter(Gate()), [nn.Identity(), nn.Identity()])(X, context={"number": NUMBERS})
    assert row_numbers == [NUMBERS.tolist()]


@pytest.mark.parametrize("execution", ["loop", "sorted", "dense"])
def test_tokens_are_told_of_their_sequence(execution):
    x, number = X.view(3, 4, 4), torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    moe = make_mixture(PositionalExpert, "list", "top_1", execution)
    expected = moe(X, context={"number": number.repeat_interleave(4)})
    torch.testing.assert_close(moe(x, context={"number": number}), expected.view(3, 4, 4))


@pytest.mark.parametrize("layer", ["attentive", "soft_moe"])
def test_bodies_heads_and_slots(layer):
    row_numbers = []

    class RecordingLinear(nn.Linear):
        def forward(self, x, context):
            row_numbers.append(context["number"].tolist())
            return super().forward(x)

    if layer == "attentive":
        moe = mb.layers.AttentiveMixture(
            nn.Linear(4, 5), [RecordingLinear(4, 6)], [RecordingLinear(6, 2)], 5, 6
        ).double()
        moe(X, context={"number": NUMBERS})
        assert row_numbers == [NUMBERS.tolist()] * 2
    else:
        moe = mb.layers.SoftMoE(4, [RecordingLinear(4, 4), nn.Linear(4, 4)], slots=2).double()
        with mb.context(number=NUMBERS[:3]):
            moe(X.view(3, 4, 4))
        assert row_numbers == [NUMBERS[:3].tolist()]


def test_without_side_information_it_is_empty():
    class EmptyContextLinear(nn.Linear):
        def forward(self, x, context):
            assert context == {}
            return super().forward(x)

    assert mb.Mixture(
        EmptyContextLinear(4, 2), [EmptyContextLinear(4, 3), EmptyContextLinear(4, 3)], mb.routers.TopK(1)
    ).double()(X).shape == (ROWS, 3)


@pytest.mark.parametrize("shape", [(), (4,), (12,), (1, 3)])
def test_entries_for_other_rows_are_refused(shape):
    """One for each token would silently be taken for sequences'."""
    moe = make_mixture(PositionalExpert, "list")
    with pytest.raises(ArgumentError, match=r"^context\['number'\]: needs one entry for each of the 3 of the input's"):
        moe(X.view(3, 4, 4), context={"number": torch.zeros(shape)})
