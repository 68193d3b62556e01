"""What holds for every expert; a new one is tested by being there."""

import inspect

import pytest
import torch
from torch import nn

from moebius.execution.stacked import Stacked
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 5, "domains": 2, "experts": 3}
SAMPLES = {"hidden": lambda: 6, "network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5))}


def facts(kind):
    """What follows from the data; the adapter's classes do not, they are those that its network knows."""
    return [
        name
        for name in inspect.signature(find("experts", kind)).parameters
        if name in FACTS and not (kind == "adapter" and name == "classes")
    ]


def build(kind, seed=0, **changed):
    torch.manual_seed(seed)
    component, given = find("experts", kind), {**FACTS, **changed}
    parameters = inspect.signature(component).parameters.values()
    needed = {p.name: SAMPLES[p.name]() for p in parameters if p.default is p.empty and p.name not in FACTS}
    return component(**{name: given[name] for name in facts(kind)}, **needed)


def width(kind):
    return FACTS["classes" if "classes" in inspect.signature(find("experts", kind)).parameters else "features"]


def images(count, dtype=torch.float32):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count)).to(dtype)


def everyone(experts, x):
    return Soft()(torch.zeros(len(x), len(experts)))


ALL = pytest.mark.parametrize("kind", kinds("experts"))
STACKED = pytest.mark.parametrize(
    "kind", [kind for kind in kinds("experts") if hasattr(find("experts", kind), "rowwise")]
)


@ALL
@pytest.mark.parametrize("count", [7, 1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gives_one_output_per_row_in_its_precision(kind, count, dtype):
    y = build(kind).to(dtype)(images(count, dtype))
    assert y.shape == (count, width(kind))
    assert y.dtype == dtype


@ALL
def test_bf16_is_float32_but_for_rounding(kind):
    x = images(16)
    rounded = build(kind).eval().bfloat16()(x.bfloat16()).float()
    torch.testing.assert_close(rounded, build(kind).eval()(x), rtol=0.05, atol=0.05)


@ALL
def test_permuting_rows_permutes_outputs(kind):
    expert, x, order = build(kind).eval(), images(9), torch.arange(9).flip(0)
    torch.testing.assert_close(expert(x[order]), expert(x)[order])


@ALL
def test_eval_is_deterministic_and_leaves_the_input_as_it_was(kind):
    expert, x = build(kind).eval(), images(5)
    before = x.clone()
    assert torch.equal(expert(x), expert(x))
    assert torch.equal(x, before)


@ALL
def test_a_batch_without_rows_leaves_its_state_as_it_was(kind):
    expert = build(kind)
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    expert(images(0))
    assert all(torch.equal(value, before[name]) for name, value in expert.state_dict().items())


@ALL
def test_backward_reaches_every_parameter_and_the_input(kind):
    expert, x = build(kind), images(32).requires_grad_()
    expert(x).square().sum().backward()
    for name, tensor in [*expert.named_parameters(), ("input", x)]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().sum() > 0, name


@ALL
def test_gradients_are_those_of_finite_differences(kind):
    expert = build(kind).double().eval()
    assert torch.autograd.gradcheck(expert, images(2, torch.float64).requires_grad_())


@ALL
def test_saved_and_loaded_it_gives_the_same_outputs(kind):
    expert, other, x = build(kind).eval(), build(kind, seed=1).eval(), images(4)
    assert not torch.equal(expert(x), other(x))
    other.load_state_dict(expert.state_dict())
    assert torch.equal(expert(x), other(x))


@ALL
@pytest.mark.parametrize("bad", [0, -1])
def test_impossible_facts_are_refused_by_name(kind, bad):
    for name in facts(kind):
        with pytest.raises(ArgumentError, match=f"^{name}: "):
            build(kind, **{name: bad})


# The adapter makes any input as large as its network wants it.
@pytest.mark.parametrize("kind", [kind for kind in kinds("experts") if kind != "adapter"])
def test_an_input_of_another_size_is_refused_with_its_shape(kind):
    with pytest.raises(ArgumentError, match=r"2, 1, 9, 7"):
        build(kind)(torch.zeros(2, 1, 9, 7))


@STACKED
@pytest.mark.parametrize("rows", [6, 1, 0])
@pytest.mark.parametrize("experts", [1, 2, 5])
def test_stacked_is_the_loop_forward_and_backward(kind, experts, rows):
    several = nn.ModuleList(build(kind, seed) for seed in range(experts)).double()
    x = images(rows, torch.float64)
    gradient = torch.rand(rows, experts, width(kind), dtype=torch.float64)

    def run(values):
        leaf = x.clone().requires_grad_()
        outputs = values(leaf)
        return outputs, torch.autograd.grad(outputs, [leaf, *several.parameters()], gradient)

    fast, fast_gradients = run(lambda leaf: Stacked()(several, everyone(several, leaf), leaf))
    slow, slow_gradients = run(lambda leaf: torch.stack([expert(leaf) for expert in several], 1))
    torch.testing.assert_close(fast, slow)
    for a, b in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(a, b)


@STACKED
def test_stacked_trains_each_experts_own_parameters_but_not_frozen_ones(kind):
    several = [build(kind, seed) for seed in range(3)]
    several[1].requires_grad_(False)
    Stacked()(several, everyone(several, images(6)), images(6)).sum().backward()
    assert all(p.grad is not None for expert in (several[0], several[2]) for p in expert.parameters())
    assert all(p.grad is None for p in several[1].parameters())
