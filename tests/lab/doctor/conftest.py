"""The mixtures whose illness is known, for the tests beside this file."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def constructed():
    """The module `constructed.py` beside this file."""
    name = "constructed_mixtures"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("constructed.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
