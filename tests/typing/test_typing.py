"""What a user's editor knows: the names of the package have their types, and a wrong one is an error."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import moebius as mb
from moebius.kit.registry import ROOMS, find, kinds

FILE = Path(__file__).with_name("a_users_file.py")
LINES = FILE.read_text(encoding="utf-8").splitlines()
WRONG = {number for number, line in enumerate(LINES, 1) if line.endswith("# wrong")}
PACKAGE = Path(mb.__file__).parent


def errors_of(*command: str) -> set[int]:
    """The lines of the user's file that a checker finds wrong."""
    result = subprocess.run([sys.executable, "-m", *command, str(FILE)], capture_output=True, text=True)
    pattern = re.compile(rf"{re.escape(FILE.name)}:(\d+)(?::\d+)?(?: -|:) error")
    found = {int(number) for number in pattern.findall(result.stdout)}
    assert found or result.returncode == 0, result.stdout + result.stderr
    return found


def test_pyright_finds_what_is_wrong_and_nothing_else():
    assert errors_of("pyright", "--pythonpath", sys.executable) == WRONG


@pytest.mark.thorough
def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path):
    assert errors_of("mypy", "--cache-dir", str(tmp_path), "--no-error-summary") == WRONG


def test_the_face_names_for_checkers_what_it_gives():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    named = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            named[alias.asname or alias.name] = (statement.module, alias.name)
    assert set(named) | {"__version__"} == set(mb.__all__)
    for name, (module, attribute) in named.items():
        if module == "moebius":
            assert getattr(mb, name) is importlib.import_module(f"moebius.{name}")
        else:
            assert getattr(mb, name) is getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("room", ROOMS)
def test_the_stub_of_a_room_names_its_kinds(room):
    path = Path(importlib.import_module(ROOMS[room]).__file__ or "").with_suffix(".pyi")
    assert path.exists(), "python hatch_build.py writes the stubs; installing the package does, too"
    imported = {
        (statement.module, alias.asname)
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(f"{ROOMS[room]}.")
        for alias in statement.names
        # Private modules are what the room's __init__ itself exports: a contract, and what it reads.
        if alias.asname is not None and not (statement.module or "").rpartition(".")[2].startswith("_")
    }
    own = [kind for kind in kinds(room) if find(room, kind).__module__ == f"{ROOMS[room]}.{kind}"]
    assert imported == {(f"{ROOMS[room]}.{kind}", find(room, kind).__name__) for kind in own}


def test_the_marker_of_types_is_there():
    assert (PACKAGE / "py.typed").is_file()
