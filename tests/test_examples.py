"""The examples of the core's docstrings run as they are printed."""

import doctest
import importlib

import pytest

from moebius.registry import kinds

CORE = ["routing", "mixture", "frame", "recording", "registry", "files", "arguments", "build"]
MODULES = [*CORE, *(f"{room}.{kind}" for room in ("execution", "combine") for kind in kinds(room))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(f"moebius.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
