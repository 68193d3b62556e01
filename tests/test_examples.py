"""Every component says what it is and where it is from, and the examples of docstrings run as they are printed."""

import doctest
import importlib
import inspect

import pytest

from moebius.registry import find, kinds

CORE = [
    "routing",
    "mixture",
    "frame",
    "recording",
    "registry",
    "files",
    "hashing",
    "keys",
    "arguments",
    "build",
    "allocator",
    "networks.activations",
    "networks.conv_net",
    "networks._dropout",
    "memory",
    "modes",
    "weights",
    "structure",
    "saving",
    "exporting",
    "editing",
    "data.select",
    "data.subset",
    "data.views",
    "data.augmentation._apply",
    "training.fit",
    "training.patience",
    "equal",
    "stack",
    "networks.feed_forward",
    "execution._order",
    "execution._product",
    "execution._layers",
    "execution._vmapped",
    "transforms",
    "views",
    "bench.timing",
    "bench.problem",
    "bench.dense",
    "bench.measure",
    "bench.table",
]
ROOMS = (
    *("gates", "routers", "experts", "losses", "schedules", "combine", "execution", "layers", "diagnostics"),
    "data.augmentation",
)
COMPONENTS = [(room, kind) for room in ROOMS for kind in kinds(room)]


@pytest.mark.parametrize(("room", "kind"), COMPONENTS)
def test_a_component_documents_itself(room, kind):
    text = inspect.getdoc(find(room, kind)) or ""
    assert text.splitlines()[0].endswith((".", "?"))
    assert "Reference:" in text


@pytest.mark.parametrize("name", [*CORE, *(f"{room}.{kind}" for room, kind in COMPONENTS)])
def test_examples_run(name):
    module = importlib.import_module(f"moebius.{name}")
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize(("room", "kind"), [pair for pair in COMPONENTS if pair[0] != "execution"])
def test_a_component_has_an_example(room, kind):
    assert ">>>" in (inspect.getdoc(find(room, kind)) or "")
