"""The linear stack begins as the logarithmic pool, and learns to correct experts that are wrong in a steady way."""

import pytest
import torch

import moebius as mb
from moebius.combine.linear_stack import LinearStack
from moebius.kit.errors import ArgumentError
from moebius.routers import Soft


def test_it_begins_as_the_geometric_mean():
    outputs = torch.randn(5, 3, 4)
    pool = outputs.log_softmax(-1).mean(1)
    assert torch.allclose(LinearStack(3, 4)(outputs, Soft()(torch.zeros(5, 3))), pool, atol=1e-6)


def test_a_probability_of_zero_is_a_floor_and_no_infinity():
    outputs = torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]])
    y = LinearStack(2, 2, floor=1e-4)(outputs, Soft()(torch.zeros(1, 2)))
    floor = torch.tensor(1e-4).log()
    half = torch.tensor(0.5).log()
    assert torch.allclose(y[0], torch.stack([half / 2, (floor + half) / 2]))


def test_it_learns_that_an_expert_swaps_two_classes():
    torch.manual_seed(0)
    target = torch.randint(3, (300,))
    logits = 4.0 * torch.eye(3)[target] + torch.randn(300, 3)
    swapped = logits[:, [1, 0, 2]].unsqueeze(1)
    stack, routing = LinearStack(1, 3), Soft()(torch.zeros(300, 1))
    optimizer = torch.optim.Adam(stack.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(stack(swapped, routing), target).backward()
        optimizer.step()
    assert (swapped.squeeze(1).argmax(1) == target).float().mean() < 0.5
    assert (stack(swapped, routing).argmax(1) == target).float().mean() > 0.95


def test_a_mixture_with_it_comes_back_from_its_file(tmp_path):
    moe = mb.Mixture(mb.gates.Uniform(2), [mb.experts.Linear(4, 3) for _ in range(2)], combine=LinearStack(2, 3))
    torch.nn.init.normal_(moe.combine.maps[1].weight)
    mb.save(moe, tmp_path)
    x = torch.randn(5, 4)
    assert torch.equal(mb.load(tmp_path)(x), moe(x))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="must be 4, the number of the experts' outputs"):
        LinearStack(3, 5)(torch.zeros(2, 3, 4), Soft()(torch.zeros(2, 3)))
    with pytest.raises(ArgumentError, match="must be 2, the number of the mixture's experts"):
        LinearStack(3, 4)(torch.zeros(2, 2, 4), Soft()(torch.zeros(2, 2)))
    with pytest.raises(ArgumentError, match="above 0 and below 1"):
        LinearStack(3, 5, floor=0.0)


@pytest.mark.parametrize(("form", "numbers"), [("full", 2 * 9 + 3), ("diagonal", 2 * 3 + 3), ("scalar", 2)])
def test_forms_have_their_numbers_and_quantities_begin_as_the_mean(form, numbers):
    stack = LinearStack(2, 3, form=form, activation="none")
    outputs = torch.randn(4, 2, 3)
    assert sum(parameter.numel() for parameter in stack.parameters()) == numbers
    assert torch.allclose(stack(outputs, Soft()(torch.zeros(4, 2))), outputs.mean(1), atol=1e-6)
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter)
    of_all = stack(outputs, Soft()(torch.zeros(4, 2)))
    chosen = mb.routers.TopK(2)(torch.zeros(4, 2))
    assert torch.allclose(stack(chosen.selection.select_outputs(outputs), chosen), of_all, atol=1e-6)
