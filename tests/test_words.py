"""Names say what a value is, and every refusal says what to do instead."""

import ast
from pathlib import Path

import pytest

import moebius as mb

PACKAGE = Path(mb.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Participles, pronouns and adverbs: none says what the value is.
RIDDLES = {"one", "own", "other", "given", "found", "said", "wanted", "made", "known", "held", "there", "here", "what"}

# Error → the place of the fix among its arguments, from 1.
FIXES = {"ArgumentError": 4}
FIXES |= dict.fromkeys(
    ("MoebiusError", "DataError", "StudyError", "TrainingError", "DivergedError", "MissingExtraError"), 2
)
FIXES |= {"UnknownKindError": 2}


def named(tree: ast.AST) -> set[tuple[int, str]]:
    """Line and name of every variable and parameter that a file binds."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add((node.lineno, node.id))
        elif isinstance(node, ast.arg):
            names.add((node.lineno, node.arg))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_names_are_nouns(path):
    assert sorted(pair for pair in named(ast.parse(path.read_text(encoding="utf-8"))) if pair[1] in RIDDLES) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_error_has_a_fix(path):
    lacking = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (place := FIXES.get(ast.unparse(node.func))) is not None
        and len(node.args) < place
        and all(keyword.arg != "fix" for keyword in node.keywords)
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    assert lacking == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
