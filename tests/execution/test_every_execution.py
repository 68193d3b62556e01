"""What holds for every execution; a new one is tested by being there.

The oracle is the loop over the experts as modules of their own, in float64.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import moebius as mb
from moebius.core.routing import Routing, Selection
from moebius.execution._pool import Pool
from moebius.execution.loop import Loop
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds

loop = Loop()


def activated():
    return nn.Sequential(nn.Tanh(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


def unlike(number):
    if number % 3 == 0:
        return nn.Linear(6, 6)
    return mb.experts.FFN(6, 5) if number % 3 == 1 else nn.Sequential(nn.Linear(6, 6), nn.Tanh())


# How to make an expert, the shape of a row, and what the experts are: a stack of FFN, of dense layers, or of anything,
# or a list.
POOLS = {
    "gelu": (lambda _: mb.experts.FFN(6, 5), (6,), "ffn"),
    "relu2": (lambda _: mb.experts.FFN(6, 5, "relu2", bias=False), (6,), "ffn"),
    "swiglu": (lambda _: mb.experts.FFN(6, 5, "swiglu", bias=False), (6,), "ffn"),
    "geglu": (lambda _: mb.experts.FFN(8, 5, "geglu"), (2, 2, 2), "ffn"),
    "linear": (lambda _: mb.experts.Linear(6, 4), (6,), "dense"),
    "mlp": (lambda _: mb.experts.MLP(16, 3, [5, 4], "silu"), (1, 4, 4), "dense"),
    "sequential": (lambda _: activated(), (6,), "dense"),
    "flattened": (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), (3, 2), "dense"),
    "tokens": (lambda _: mb.experts.MLP(6, 3, [5]), (2, 6), "any"),
    "conv": (lambda _: mb.experts.Conv(1, 4, 3, [2], [5]), (1, 4, 4), "any"),
    "network": (lambda _: network(), (1, 4, 4), "any"),
    "image to image": (lambda _: nn.Conv2d(1, 2, 3), (1, 4, 4), "any"),
    "buffers": (lambda _: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval(), (6,), "any"),
    "list": (lambda _: mb.experts.FFN(6, 5), (6,), "list"),
    "unlike": (unlike, (6,), "list"),
}
# The largest error, as a share of the largest value: each of a few products and sums is rounded by up to 2⁻²⁴ (float32)
# or 2⁻⁹ (bf16) of it.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.04}

EVERY = pytest.mark.parametrize("kind", kinds("execution"))
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ON = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


def refuses(kind, name, dtype, device):
    """Whether an execution is not for these experts where a router selects; one that is not named takes all."""
    made_of = POOLS[name][2]
    return {
        "stacked": True,
        "gather": made_of not in ("ffn", "dense"),
        "grouped": made_of not in ("ffn", "dense") or dtype != torch.bfloat16,
        "fused": made_of != "ffn" or device == "cpu" or dtype == torch.float64,
    }.get(kind, False)


def pool(name, count, dtype=torch.float64, device="cpu"):
    torch.manual_seed(0)
    make, shape, made_of = POOLS[name]
    experts = [make(number) for number in range(count)]
    return (nn.ModuleList if made_of == "list" else mb.Stack)(experts).to(device, dtype), shape


def in_double(experts):
    """The same experts in float64, as modules of their own."""
    alone = experts.unstacked() if isinstance(experts, mb.Stack) else experts
    return nn.ModuleList(copy.deepcopy(expert).double().cpu() for expert in alone)


def gradients(experts):
    if not isinstance(experts, mb.Stack):
        return {name: parameter.grad for name, parameter in experts.named_parameters()}
    return {
        f"{number}.{name}": None if parameter.grad is None else parameter.grad[number]
        for name, parameter in ((name, getattr(experts, flat)) for name, flat in experts.flat_names.items())
        if isinstance(parameter, nn.Parameter)
        for number in range(len(experts))
    }


def outputs(execution, experts, x, routing):
    return execution(experts, routing, x)


def total(execution, experts, x, routing):
    """What a mixture makes of them by a weighted sum, by the execution itself where it can."""
    execution.insist(Pool(experts), routing, x)
    y = None if routing.selection is None else execution.sum(Pool(experts), routing, x)
    return mb.WeightedSum()(execution(experts, routing, x), routing) if y is None else y


def results(ask, execution, experts, x, weight_A, choice):
    """The output, and the gradients of the rows, of the router's weights and of each expert's parameters."""
    x, weight_A = x.clone().requires_grad_(), weight_A.clone().requires_grad_()
    y = ask(execution, experts, x, routed(len(x), len(experts), weight_A, choice))
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y))
    weights = {} if choice is None or ask is outputs else {"weights": weight_A.grad}
    return {"y": y.detach(), "x": x.grad, **weights, **gradients(experts)}


def routed(rows, experts, weight_A, choice):
    scores = torch.zeros(rows, experts, dtype=weight_A.dtype, device=weight_A.device)
    if choice is None:
        return mb.routers.Soft()(scores)
    row_A, expert_A, kept_A = (torch.tensor(part, device=weight_A.device) for part in choice)
    chosen = Selection(row_A.long(), expert_A.long(), weight_A, kept_A.bool())
    return Routing.from_selection(scores, scores.softmax(-1), chosen)


def agree(ours, exact, tolerance):
    assert ours.keys() == exact.keys()
    for name, value in exact.items():
        assert (value is None) == (ours[name] is None), name
        if value is not None:
            assert ours[name].shape == value.shape, name
            error = (ours[name].cpu().double() - value).abs()
            largest = max(1, value.abs().max().item()) if len(error.flatten()) else 1
            assert (error <= tolerance * largest).all(), name


@st.composite
def choices(draw):
    """Rows, experts, and the assignments between them: rows, experts, kept; None where every expert sees every row."""
    rows, experts = draw(st.integers(0, 7)), draw(st.integers(1, 4))
    how = draw(st.sampled_from(["any", "any", "k", "one expert", "nothing kept", "all"]))
    if how == "all":
        return rows, experts, None
    if how == "k":
        k = draw(st.integers(1, experts))
        pairs = [(row, expert) for row in range(rows) for expert in draw(st.permutations(range(experts)))[:k]]
    elif how == "one expert":
        chosen = draw(st.integers(0, experts - 1))
        pairs = [(row, chosen) for row in range(rows)]
    else:
        # One row may come twice to one expert.
        pair = st.tuples(st.integers(0, max(0, rows - 1)), st.integers(0, experts - 1))
        pairs = draw(st.lists(pair, max_size=12 if rows else 0))
    kept = [draw(st.booleans()) if how == "any" else how != "nothing kept" for _ in pairs]
    return rows, experts, ([row for row, _ in pairs], [expert for _, expert in pairs], kept)


def check(kind, name, dtype, device, drawn, seed, asks=(outputs, total)):
    rows, count, choice = drawn
    experts, shape = pool(name, count, dtype, device)
    torch.manual_seed(seed)
    x = torch.randn(rows, *shape).to(dtype)
    # Routers weigh in float32 at least.
    weight_A = torch.rand(0 if choice is None else len(choice[0]), dtype=torch.promote_types(dtype, torch.float32))
    for ask in asks:
        exact = results(ask, loop, in_double(experts), x.double(), weight_A.double(), choice)
        experts.zero_grad()
        ours = results(ask, find("execution", kind)(), experts, x.to(device), weight_A.to(device), choice)
        assert ours["y"].dtype == dtype
        agree(ours, exact, TOLERANCES[dtype])


@EVERY
@ON
@pytest.mark.parametrize("name", POOLS)
def test_outputs_and_gradients_are_the_loops(kind, name, device):
    formats = [dtype for dtype in TOLERANCES if not refuses(kind, name, dtype, device)]
    if formats:
        examples = given(
            choices().filter(lambda drawn: drawn[2] is not None), st.sampled_from(formats), st.integers(0, 9)
        )
        settings(max_examples=8)(examples(lambda drawn, dtype, seed: check(kind, name, dtype, device, drawn, seed)))()
    for dtype in TOLERANCES.keys() - formats:
        with pytest.raises(ArgumentError, match=f"^execution: {kind} needs") as caught:
            check(kind, name, dtype, device, (2, 2, ([0, 1], [1, 0], [True, True])), 0)
        assert caught.value.fix in ('execution="auto"', 'execution="loop"')


@EVERY
@ON
@pytest.mark.parametrize("name", POOLS)
def test_so_they_are_where_every_expert_sees_every_row(kind, name, device):
    if (kind, name) == ("stacked", "unlike"):
        pytest.skip("no two of them are equal")
    for rows, count, dtype in ((5, 3, torch.float64), (1, 1, torch.float32), (0, 2, torch.bfloat16)):
        check(kind, name, dtype, device, (rows, count, None), 0, [outputs])
