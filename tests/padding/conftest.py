"""A batch with padding, and the same batch without it."""

import pytest

from moebius.testing.padding import MASK, compare_masked, make_tokens


@pytest.fixture
def check_padding():
    """`compare_masked`."""
    return compare_masked


@pytest.fixture
def mask():
    """MASK."""
    return MASK


@pytest.fixture
def tokens():
    """Sequences of tokens, (3, 5, 4), in float64."""
    return make_tokens()
