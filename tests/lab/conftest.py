"""What tests of the lab share."""

import pytest

import moebius as mb
from moebius.kit import registry


@pytest.fixture
def register(monkeypatch):
    """`mb.register` whose kinds are forgotten when the test ends, so that tests that walk a room do not meet them."""
    monkeypatch.setattr(registry, "_plugins", {room: dict(kinds) for room, kinds in registry._plugins.items()})
    return mb.register
