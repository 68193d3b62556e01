"""Each check that holds for all rooms finds the component that breaks it."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit import registry
from moebius.testing import check_component
from moebius.testing.components import CHECKS


@pytest.fixture
def register(monkeypatch):
    """Registers kinds for one test."""
    monkeypatch.setattr(registry, "_plugins", {})
    return lambda room, kind, component: mb.register(room, kind)(component)


class Unfound(mb.gates.Linear):
    pass


class NoSentence(mb.gates.Linear):
    """A gate"""


class NoReference(mb.gates.Linear):
    """A gate."""


class NoExample(mb.gates.Linear):
    """A gate. Reference: ours."""


class WrongExample(mb.gates.Linear):
    """A gate.

    Example:
        >>> 1 + 1
        3
    """


class Doubles(mb.routers.Soft):
    """Keeps its temperature in another unit."""

    def __init__(self, temperature: float = 1.0):
        super().__init__(2 * temperature)


class IgnoresItsArgument(mb.routers.Soft):
    def __init__(self, renormalise: bool = True):
        super().__init__()
        self.renormalise = True


class Draws(mb.routers.Soft):
    @property
    def temperature(self):
        torch.rand(())
        return 1.0

    @temperature.setter
    def temperature(self, value):
        pass


class Addressed(nn.Module):
    def __init__(self, experts: int):
        super().__init__()
        self.linear = nn.Linear(64, experts)

    def extra_repr(self):
        return hex(id(self))


class Unsaved(mb.gates.Linear):
    """Scores that depend on a tensor that is not registered."""

    def __init__(self, features: int, experts: int):
        super().__init__(features, experts)
        self.shift = torch.randn(experts)

    def forward(self, x):
        return super().forward(x) + self.shift


Unsaved.bias = True

BROKEN = {
    "is_found_by_its_kind": ("gates", Unfound, "is known to the registry as None"),
    "documents_itself": ("gates", NoReference, "has a docstring without a reference"),
    "has_an_example_that_runs": ("gates", WrongExample, r"(?s)has an example that fails:.*Expected:\n.*3\n.*Got:"),
    "is_made_anew_from_its_description": ("routers", Doubles, "comes back with other arguments"),
    "draws_nothing_when_described": ("routers", Draws, "draws from torch's generator when it is described"),
    "has_the_same_text_for_the_same_arguments": ("gates", Addressed, "has the texts Addressed"),
    "comes_back_from_a_folder": ("gates", Unsaved, "gives other outputs once it is saved and loaded"),
}
HALVES = [
    ("documents_itself", "gates", NoSentence, "has a docstring whose first line is 'A gate', needs a sentence"),
    ("has_an_example_that_runs", "gates", NoExample, "has a docstring without an example"),
    ("is_made_anew_from_its_description", "routers", IgnoresItsArgument, "is made with renormalise=False and descri"),
]


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(("name", "room", "component", "match"), [*((n, *b) for n, b in BROKEN.items()), *HALVES])
def test_a_broken_component_is_named(breaks, register, name, room, component, match):
    if component is not Unfound:
        register(room, "broken", component)
    breaks(CHECKS, name, room, component, match, kind="broken")


class Kept(mb.gates.Linear):
    """A gate that breaks nothing, without a bias of its own choice.

    Example:
        >>> 1 + 1
        2

    Reference: ours.
    """


def test_a_registered_component_that_breaks_nothing(register):
    register("gates", "kept", Kept)
    check_component("gates", "kept")
    check_component("gates", "kept", bias=False)
