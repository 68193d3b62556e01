"""A batch with padding, and the same batch without it."""

import copy
from dataclasses import replace
from math import prod

import pytest
import torch
from torch.utils import _pytree as pytree

import moebius as mb
from moebius.core.loss_needs import loss_needs
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.lab.training.objective import expert_losses

# Padding at the end, at the beginning and in between.
MASK = torch.tensor(
    [[True, True, True, True, True], [True, False, True, False, False], [False, False, True, True, True]]
)
CLASSES = 3


def poisoned(x, mask):
    """The same real rows, among NaN and infinity."""
    poison = torch.where(torch.arange(x.shape[-1]) % 2 == 0, torch.nan, torch.inf).to(x)
    return torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, poison)


def run_masked(model, x, mask, way="argument"):
    if way == "argument":
        return model(x, mask=mask)
    with mb.context(mask=mask):
        return model(x)


def values_of(log, labels):
    """Every loss of every recorded routing that applies to it, by path and name."""
    values = {}
    for path, routings in log.items():
        for call, routing in enumerate(routings):
            for kind in kinds("losses"):
                loss = find("losses", kind)
                if loss_needs(loss).expert_losses and routing.outputs is None:
                    continue
                more = (expert_losses(routing, labels),) if loss_needs(loss).expert_losses else ()
                try:
                    values[path, call, kind] = loss(routing, *more)
                except ArgumentError:  # the router gives no distribution, or not what the loss is of
                    continue
    return values


def gradients(objective, model, x):
    """Of every parameter and of the input."""
    tensors = [*model.parameters(), x]
    if not objective.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(objective, tensors, allow_unused=True)
    return [torch.zeros_like(t) if gradient is None else gradient for t, gradient in zip(tensors, found, strict=True)]


def objective(y, values):
    scale = torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)
    return (y * scale).square().sum() + sum((place + 1) * value for place, value in enumerate(values.values()))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def same_records(log, expected, places):
    """Equal routings whose rows stand in the whole batch where `places` says."""
    assert list(log) == list(expected)
    for path in log:
        for found, alone in zip(log[path], expected[path], strict=True):
            assert torch.equal(found.rows, places if alone.rows is None else places[alone.rows])
            leaves, spec = pytree.tree_flatten(replace(found, rows=None))
            other_leaves, other_spec = pytree.tree_flatten(replace(alone, rows=None))
            assert spec == other_spec
            close(leaves, other_leaves)


def assert_as_without(model, x, mask, way="argument", outputs=False, seed=3):
    """A masked batch gives what the batch without padding gives: outputs, records, losses, gradients, state.

    Returns: how many values of losses were compared.
    """
    twin = copy.deepcopy(model)
    padded, alone = poisoned(x, mask).requires_grad_(), x[mask].requires_grad_()
    axes = mask.shape if mask.ndim > 1 or x.ndim == 2 else x.shape[:2]
    places = torch.arange(prod(axes)).view(axes)[mask].flatten()
    labels = torch.arange(prod(axes)) % CLASSES
    torch.manual_seed(seed)
    with mb.record(model, outputs=outputs) as log:
        y = run_masked(model, padded, mask, way)
    torch.manual_seed(seed)
    with mb.record(twin, outputs=outputs) as expected_log:
        expected = twin(alone)
    assert y.shape[: x.ndim - 1] == x.shape[:-1]
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    close(y[mask], expected)
    same_records(log, expected_log, places)
    values, expected_values = values_of(log, labels), values_of(expected_log, labels[places])
    close(values, expected_values)
    *of_parameters, of_x = gradients(objective(y, values), model, padded)
    *others, of_alone = gradients(objective(expected, expected_values), twin, alone)
    close(of_parameters, others)
    close(of_x[mask], of_alone)
    assert torch.equal(of_x[~mask], torch.zeros_like(of_x[~mask]))
    for changed in (model, twin):
        mb.step_routers(changed)
    close(model.state_dict(), twin.state_dict())
    return len(values)


@pytest.fixture
def as_without():
    """`assert_as_without`."""
    return assert_as_without


@pytest.fixture
def mask():
    """MASK."""
    return MASK


@pytest.fixture
def tokens():
    """Sequences of tokens, (3, 5, 4), in float64."""
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
