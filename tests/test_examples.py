"""Every component says what it is and where it is from, and the examples of docstrings run as they are printed."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import moebius as mb
from moebius.kit.registry import ROOMS, find, kinds

PACKAGE = Path(mb.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" and ">>>" in path.read_text(encoding="utf-8")
]
COMPONENTS = [(room, kind) for room in ROOMS for kind in kinds(room)]


@pytest.mark.parametrize(("room", "kind"), COMPONENTS)
def test_a_component_documents_itself(room, kind):
    text = inspect.getdoc(find(room, kind)) or ""
    assert text.splitlines()[0].endswith((".", "?"))
    assert "Reference:" in text


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize(("room", "kind"), [pair for pair in COMPONENTS if pair[0] != "execution"])
def test_a_component_has_an_example(room, kind):
    assert ">>>" in (inspect.getdoc(find(room, kind)) or "")
