from collections.abc import Sequence
from typing import Any

import pytest

from moebius.lab.checks.keywords import keyword_cells, list_keywords, parse_arguments, read_keywords, yaml_text


def made_up(rows, size: int, low: float = 2 / 3, high: float = 1.0, names: Sequence[str] = ("a", "b"), **options: Any):
    """A function.

    Arguments:
        rows: what it is called with.
        size: of
            something.
        low, high: ends of an interval: both are included.

    Returns:
        size: nothing.
    """


def test_keywords_are_read_from_signature_and_docstring():
    words = read_keywords(made_up, excluded=("rows",), facts=("size",))
    assert [(word.name, word.type, word.state, word.text) for word in words] == [
        ("size", "a whole number", "filled in from the data", "of something."),
        ("low", "a number", "default 0.6666666666666666", "ends of an interval: both are included."),
        ("high", "a number", "default 1", "ends of an interval: both are included."),
        ("names", "a list of texts", "default [a, b]", ""),
    ]


def test_a_loss_has_no_keyword_for_what_training_gives_it():
    assert [word.name for word in list_keywords("losses", "best_fit")] == ["temperature", "balanced", "floor"]
    assert list_keywords("losses", "expectation") == []


def test_only_models_are_filled_in_from_the_data():
    assert [word.name for word in list_keywords("gates", "conv") if word.from_data] == ["channels", "size", "experts"]
    assert not any(word.from_data for word in list_keywords("data.sources", "textures"))


def test_a_kind_without_keywords_has_a_row():
    assert keyword_cells("routers", "argmax") == [("", "", "", "takes no keywords")]


@pytest.mark.parametrize("docstring", [None, "", "One line.", "Arguments:", "Words.\n\nArguments:\nnothing: indented."])
def test_a_docstring_without_arguments_has_none(docstring):
    assert parse_arguments(docstring) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (1e-3, "0.001"),
        (2, "2"),
        ({"kind": "soft"}, "{kind: soft}"),
        ("", '""'),
        ([[1], []], "[[1], []]"),
    ],
)
def test_defaults_are_written_as_yaml(value, text):
    assert yaml_text(value) == text
