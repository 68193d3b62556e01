"""What the tests of several losses share."""

import runpy
from pathlib import Path

import pytest

ROUTINGS = runpy.run_path(str(Path(__file__).with_name("routings.py")))


@pytest.fixture(scope="session")
def complete_routing():
    """`complete_routing(kind, scores, expert_losses)`: a routing that the loss accepts; see routings.py."""
    return ROUTINGS["complete_routing"]


@pytest.fixture(scope="session")
def call_loss():
    """`call_loss(kind, routing, expert_losses, **options)`: the loss, with the arguments that it takes."""
    return ROUTINGS["call_loss"]
