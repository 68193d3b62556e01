import doctest

import pytest
import torch
from torch.nn import functional as F

from moebius.kit.errors import ArgumentError
from moebius.networks import ACTIVATIONS, MONOTONE, _dropout, activation_named, activations, conv_net
from moebius.networks.activations import activate_map

X = torch.linspace(-3, 3, 61, dtype=torch.float64)


@pytest.mark.parametrize("module", [activations, conv_net, _dropout])
def test_examples_run(module):
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_those_that_never_fall_are_named(name):
    assert bool((activation_named(name)(X).diff() >= 0).all()) == (name in MONOTONE)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("before", [lambda x: F.conv2d(x, x[:, :, :3, :3]), lambda x: F.max_pool2d(x, 2)])
def test_overwriting_a_map_changes_neither_values_nor_gradients(name, before):
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    results = []
    for activate in (lambda y: activate_map(y, name), ACTIVATIONS[name]):
        leaf = x.clone().requires_grad_()
        y = activate(before(leaf))
        y.square().sum().backward()
        results.append((y, leaf.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), True])
def test_shares_that_cannot_be_are_refused(share):
    with pytest.raises(ArgumentError, match=r"^hidden_dropout: needs a number from 0 to below 1"):
        _dropout.dropout_rate("hidden_dropout", share)
