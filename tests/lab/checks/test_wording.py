from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field, ValidationError

from moebius.lab.checks.strict import Strict
from moebius.lab.checks.wording import describe_type, problems_of


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (int | float, "a number"),
        (float | torch.Tensor, "a number"),
        (list[str] | None, "a list of texts or null"),
        (tuple[int, int], "a list of 2 values"),
        (Annotated[bool, "x"], "true or false"),
        (dict[str, int], "a mapping"),
        (torch.Tensor, None),
    ],
)
def test_types_in_words(annotation, words):
    assert describe_type(annotation) == words


class Inner(Strict):
    number: float = Field(default=1.0, gt=0)


class Outer(Strict):
    whole: int = Field(ge=2)
    word: Literal["a", "b"] = "a"
    items: list[Inner] = Field(default=[], max_length=2)
    named: dict[str, Inner] = Field(default={})
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({}, "x.whole: is missing"),
        ({"whole": 1}, "x.whole: needs a number of at least 2, got 1"),
        ({"whole": 2.0}, "x.whole: needs a whole number, got 2.0"),
        ({"whole": True}, "x.whole: needs a whole number, got true"),
        ({"whole": 2, "word": "c"}, "x.word: needs one of a, b, got 'c'"),
        ({"whole": 2, "items": 3}, "x.items: needs a list, got 3"),
        ({"whole": 2, "items": [{"numbr": 3}]}, "x.items[0].numbr: no such key, got 3; did you mean number?"),
        ({"whole": 2, "named": {"n": {"numbr": 3}}}, "x.named.n.numbr: no such key, got 3; did you mean number?"),
        ({"whole": 2, "inner": {"number": 0}}, "x.inner.number: needs a number above 0, got 0"),
        ({"whole": 2, "inner": {"number": "1"}}, "x.inner.number: needs a number, got '1'"),
        ({"whole": 2, "inner": 3}, "x.inner: needs a mapping of keys to values, got 3"),
        ({"whole": 2, "wrd": 3}, "x.wrd: no such key, got 3; did you mean word?"),
    ],
)
def test_findings_in_words(value, line):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    assert [problem.line() for problem in problems_of(caught.value, Outer, ("x",))] == [line]
