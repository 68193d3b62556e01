"""Checks of arguments, and the merging of axes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.arguments import flatten_features, non_negative, positive_integer, positive_number, positive_widths
from moebius.kit.errors import ArgumentError


def test_valid_values_are_returned():
    assert positive_integer("k", 3) == 3
    assert positive_number("factor", 2) == 2.0
    assert non_negative("jitter", 0) == 0.0
    assert positive_widths("hidden", [64, 1]) == (64, 1)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None])
def test_not_a_whole_number_of_at_least_one(value):
    with pytest.raises(ArgumentError, match=r"^k: needs a whole number of at least 1, got ") as caught:
        positive_integer("k", value)
    assert caught.value.fix == "k=1"
    with pytest.raises(ArgumentError, match=r"^hidden: needs whole numbers of at least 1, got ") as caught:
        positive_widths("hidden", [64, value])
    assert caught.value.fix == "hidden=[64]"


@pytest.mark.parametrize("value", [0, -1.0, True, math.nan, math.inf])
def test_not_a_number_above_zero(value):
    with pytest.raises(ArgumentError, match=r"^factor: needs a number above 0, got ") as caught:
        positive_number("factor", value)
    assert caught.value.fix == "factor=0.5"


@pytest.mark.parametrize("value", [-0.1, True, math.nan, math.inf])
def test_not_a_number_of_at_least_zero(value):
    with pytest.raises(ArgumentError, match=r"^jitter: needs a number of at least 0, got ") as caught:
        non_negative("jitter", value)
    assert caught.value.fix == "jitter=0"


@pytest.mark.parametrize("value", [64, None, True])
def test_a_bare_width(value):
    with pytest.raises(ArgumentError, match=f"^hidden: needs a list of widths, got {value}"):
        positive_widths("hidden", value)


def test_no_widths():
    with pytest.raises(ArgumentError, match=r"^hidden: needs at least one width, got \[\]"):
        positive_widths("hidden", [])


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_flattening_keeps_the_rows_and_their_values(shape, data):
    x = torch.arange(torch.Size(shape).numel()).double().view(shape)
    axis = data.draw(st.integers(1, len(shape) - 1))
    features = torch.Size(shape[axis:]).numel()
    flat = flatten_features(x, features)
    assert flat.shape[-1] == features
    assert flat.flatten().tolist() == x.flatten().tolist()
    assert len(flat) == shape[0]


def test_flattening_no_rows():
    assert flatten_features(torch.zeros(0, 1, 8, 8), 64).shape == (0, 64)


@pytest.mark.parametrize(("shape", "features"), [((63,), 63), ((5, 63), 63), ((64, 5), 5), ((5, 2, 8, 7), 112)])
def test_no_axes_of_that_product(shape, features):
    rule = r"^features: no trailing axes of an input of shape .* hold as many, got 64"
    with pytest.raises(ArgumentError, match=rule) as caught:
        flatten_features(torch.zeros(shape), 64)
    assert caught.value.fix == f"features={features}"
    assert flatten_features(torch.zeros(shape), features).shape[-1] == features
