"""Checks of arguments, and the merging of axes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.arguments import flatten_features, positive_integer, positive_widths
from moebius.kit.errors import ArgumentError


def test_what_is_right_comes_back():
    assert positive_integer("k", 3) == 3
    assert positive_widths("hidden", [64, 1]) == (64, 1)


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "2", None])
def test_not_a_whole_number_of_at_least_one(bad):
    with pytest.raises(ArgumentError, match=r"^k: needs a whole number of at least 1, got "):
        positive_integer("k", bad)
    with pytest.raises(ArgumentError, match=r"^hidden: needs whole numbers of at least 1, got ") as caught:
        positive_widths("hidden", [64, bad])
    assert caught.value.fix == "hidden=[64]"


@pytest.mark.parametrize("bad", [64, None, True])
def test_a_bare_width(bad):
    with pytest.raises(ArgumentError, match=f"^hidden: needs a list of widths, got {bad}"):
        positive_widths("hidden", bad)


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


@pytest.mark.parametrize("shape", [(63,), (5, 63), (64, 5), (5, 2, 8, 7)])
def test_no_axes_of_that_product(shape):
    with pytest.raises(
        ArgumentError, match=r"^features: no trailing axes of an input of shape .* hold as many, got 64"
    ):
        flatten_features(torch.zeros(shape), 64)
