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


def poison_padding(x, mask):
    """Replace padding by NaN and infinity."""
    poison = torch.where(torch.arange(x.shape[-1]) % 2 == 0, torch.nan, torch.inf).to(x)
    return torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, poison)


def call_masked(model, x, mask, mask_passing="argument"):
    if mask_passing == "argument":
        return model(x, mask=mask)
    with mb.context(mask=mask):
        return model(x)


def loss_values(log, labels):
    """Path, call and kind → value, of every loss that a recorded routing has what it needs for."""
    values = {}
    for path, routings in log.items():
        for call, routing in enumerate(routings):
            for kind in kinds("losses"):
                loss = find("losses", kind)
                if loss_needs(loss).expert_losses and routing.outputs is None:
                    continue
                arguments = (expert_losses(routing, labels),) if loss_needs(loss).expert_losses else ()
                try:
                    values[path, call, kind] = loss(routing, *arguments)
                except ArgumentError:  # the routing has no distribution, or not the aux that the loss needs
                    continue
    return values


def gradients(objective, model, x):
    """The gradients of every parameter and of the input; zeros where there are none."""
    tensors = [*model.parameters(), x]
    if not objective.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    tensor_gradients = torch.autograd.grad(objective, tensors, allow_unused=True)
    pairs = zip(tensors, tensor_gradients, strict=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in pairs]


def objective(y, values):
    scale = torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)
    return (y * scale).square().sum() + sum(factor * value for factor, value in enumerate(values.values(), 1))


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def assert_same_records(log, expected, row_numbers):
    """The routings are equal but for row numbers: row r of `expected` is row `row_numbers[r]` of the batch of `log`."""
    assert list(log) == list(expected)
    for path in log:
        for routing, expected_routing in zip(log[path], expected[path], strict=True):
            rows = expected_routing.rows
            assert torch.equal(routing.rows, row_numbers if rows is None else row_numbers[rows])
            leaves, spec = pytree.tree_flatten(replace(routing, rows=None))
            expected_leaves, expected_spec = pytree.tree_flatten(replace(expected_routing, rows=None))
            assert spec == expected_spec
            assert_close(leaves, expected_leaves)


def assert_padding_has_no_effect(model, x, mask, mask_passing="argument", outputs=False, seed=3):
    """A masked batch has the outputs, records, losses, gradients and state of the batch without padding.

    Returns: how many values of losses were compared.
    """
    twin = copy.deepcopy(model)
    padded, real_rows = poison_padding(x, mask).requires_grad_(), x[mask].requires_grad_()
    batch_shape = mask.shape if mask.ndim > 1 or x.ndim == 2 else x.shape[:2]
    row_numbers = torch.arange(prod(batch_shape)).view(batch_shape)[mask].flatten()
    labels = torch.arange(prod(batch_shape)) % CLASSES
    torch.manual_seed(seed)
    with mb.record(model, outputs=outputs) as log:
        y = call_masked(model, padded, mask, mask_passing)
    torch.manual_seed(seed)
    with mb.record(twin, outputs=outputs) as expected_log:
        expected = twin(real_rows)
    assert y.shape[: x.ndim - 1] == x.shape[:-1]
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    assert_close(y[mask], expected)
    assert_same_records(log, expected_log, row_numbers)
    values, expected_values = loss_values(log, labels), loss_values(expected_log, labels[row_numbers])
    assert_close(values, expected_values)
    *parameter_gradients, x_gradient = gradients(objective(y, values), model, padded)
    *expected_gradients, expected_x_gradient = gradients(objective(expected, expected_values), twin, real_rows)
    assert_close(parameter_gradients, expected_gradients)
    assert_close(x_gradient[mask], expected_x_gradient)
    assert torch.equal(x_gradient[~mask], torch.zeros_like(x_gradient[~mask]))
    for trained in (model, twin):
        mb.step_routers(trained)
    assert_close(model.state_dict(), twin.state_dict())
    return len(values)


@pytest.fixture
def check_padding():
    """`assert_padding_has_no_effect`."""
    return assert_padding_has_no_effect


@pytest.fixture
def mask():
    """MASK."""
    return MASK


@pytest.fixture
def tokens():
    """Sequences of tokens, (3, 5, 4), in float64."""
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
