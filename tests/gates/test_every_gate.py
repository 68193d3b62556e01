"""What holds for every gate; a new one is tested by being there."""

import inspect

import pytest
import torch

from moebius.core.row_context import takes_context
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds

EXPERTS = 3
FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 5, "experts": EXPERTS, "domains": EXPERTS}


def build(kind, **changed):
    torch.manual_seed(0)
    component, given = find("gates", kind), {**FACTS, **changed}
    return component(**{name: given[name] for name in inspect.signature(component).parameters if name in given})


def said(gate, x, domain):
    """Scores, and what a gate gives the losses beside them."""
    found = gate(x, {"domain": domain}) if takes_context(type(gate)) else gate(x)
    return found if getattr(gate, "gives_aux", False) else (found, {})


def scores(gate, x, domain):
    return said(gate, x, domain)[0]


def rows(count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(count)
    x = torch.rand(count, 1, 8, 8, generator=generator).to(dtype)
    return x, torch.randint(EXPERTS, (count,), generator=generator)


pytestmark = pytest.mark.parametrize("kind", kinds("gates"))


@pytest.mark.parametrize("count", [7, 1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_scores_every_row_for_every_expert_in_its_precision(kind, count, dtype):
    found = scores(build(kind).to(dtype), *rows(count, dtype))
    assert found.shape == (count, EXPERTS)
    assert found.dtype == dtype
    assert not found.isnan().any()


def test_one_expert_is_enough(kind):
    x, domain = rows(4)
    assert scores(build(kind, experts=1, domains=1), x, torch.zeros_like(domain)).shape == (4, 1)


def test_bf16_is_float32_but_for_rounding(kind):
    x, domain = rows(16)
    exact = scores(build(kind).eval(), x, domain)
    rounded = scores(build(kind).eval().bfloat16(), x.bfloat16(), domain)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_permuting_rows_permutes_scores(kind):
    gate, (x, domain) = build(kind).eval(), rows(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scores(gate, x[order], domain[order]), scores(gate, x, domain)[order])


def test_eval_is_deterministic(kind):
    gate, (x, domain) = build(kind).eval(), rows(5)
    assert torch.equal(scores(gate, x, domain), scores(gate, x, domain))


def test_what_it_gives_beside_the_scores_is_of_each_row_in_single_precision_at_least(kind):
    for count, dtype in ((7, torch.float32), (1, torch.bfloat16), (0, torch.float64)):
        for value in said(build(kind).to(dtype), *rows(count, dtype))[1].values():
            assert len(value) == count
            assert value.dtype == torch.promote_types(dtype, torch.float32)
            assert value.isfinite().all()


def test_a_batch_without_rows_leaves_its_state_as_it_was(kind):
    gate = build(kind)
    before = {name: value.clone() for name, value in gate.state_dict().items()}
    scores(gate, *rows(0))
    assert all(torch.equal(value, before[name]) for name, value in gate.state_dict().items())


def test_the_input_is_left_as_it_was(kind):
    (x, domain), gate = rows(5), build(kind)
    before = x.clone()
    scores(gate, x, domain)
    assert torch.equal(x, before)


def test_backward_reaches_every_parameter(kind):
    gate = build(kind)
    found, aux = said(gate, *rows(32))
    assert found.requires_grad == any(True for _ in gate.parameters())
    if found.requires_grad:
        (found.logsumexp(-1).sum() + sum(value.sum() for value in aux.values())).backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_are_those_of_finite_differences(kind):
    gate, (x, domain) = build(kind).double().eval(), rows(2, torch.float64)
    parameters = dict(gate.named_parameters())
    small = {name: p for name, p in parameters.items() if p.numel() <= 256}
    if not small:
        assert not parameters, "no parameter is small enough to check"
        return

    def changed(*values):
        full = {**parameters, **dict(zip(small, values, strict=True))}
        extra = ({"domain": domain},) if takes_context(type(gate)) else ()
        found = torch.func.functional_call(gate, full, (x, *extra))
        return (found[0], *found[1].values()) if isinstance(found, tuple) else found

    assert torch.autograd.gradcheck(changed, [p.detach().requires_grad_() for p in small.values()])


def test_saved_and_loaded_it_gives_the_same_scores(kind):
    gate, other, (x, domain) = build(kind).eval(), build(kind).eval(), rows(4)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(gate.state_dict())
    assert torch.equal(scores(gate, x, domain), scores(other, x, domain))


@pytest.mark.parametrize("bad", [0, -1])
def test_impossible_facts_are_refused_by_name(kind, bad):
    for name in inspect.signature(find("gates", kind)).parameters:
        if name in FACTS:
            with pytest.raises(ArgumentError, match=f"^({name}|experts): "):
                build(kind, **{name: bad})
