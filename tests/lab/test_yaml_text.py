import pytest
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.errors import RecipeError
from moebius.lab.yaml_text import read_yaml, write_yaml

# Without control characters and exotic line ends, which the writer folds.
TEXT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("60_000", 60000),
        ("-7", -7),
        ("0", 0),
        ("true", True),
        ("null", None),
        ("", None),
        ("010", 10),
        # Text, where YAML 1.1 has a boolean, a date or a time of day.
        ("no", "no"),
        ("on", "on"),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("e3", "e3"),
    ],
)
def test_a_scalar_reads_as(text, value):
    read = read_yaml(text, "x")
    assert read == value
    assert type(read) is type(value)


@given(PLAIN)
def test_what_is_written_reads_back_the_same(value):
    assert read_yaml(write_yaml(value), "x") == value


@pytest.mark.parametrize("text", ["1e-3", "no", "2020-01-01", "null", "true", "60_000", "", "~", "<<", "- a", "a: b"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert read_yaml(write_yaml({"x": text}), "x") == {"x": text}


def test_a_key_given_twice_is_refused_with_its_line():
    with pytest.raises(RecipeError) as caught:
        read_yaml("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "mine.yaml")
    assert (
        str(caught.value)
        == 'mine.yaml: line 5: no valid YAML: found duplicate key "c" with value "3" (original value: "1")'
    )


def test_anchors_and_merge_keys_work_and_share_nothing():
    value = read_yaml("a: &a {x: 1, y: [1]}\nb: *a\nc: {<<: *a, x: 2}", "x")
    assert value == {"a": {"x": 1, "y": [1]}, "b": {"x": 1, "y": [1]}, "c": {"x": 2, "y": [1]}}
    value["a"]["y"].append(2)
    assert value["b"]["y"] == value["c"]["y"] == [1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1", "x: line 1: no valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: .nan", "x: a: needs a finite number, got nan"),
        ("a: [1, -.inf]", "x: a[1]: needs a finite number, got -inf"),
        ("a: {1: 2}", "x: a: keys need to be text, got 1; put it in quotes"),
        ("a: &a [*a]", "x: a[0]: an alias may not contain itself"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!set {b}", "x: a: needs a plain value, got {'b'}"),
        ("a: *b", "x: line 1: no valid YAML: found undefined alias 'b'"),
        ("a: 1\n--- \nb: 2", "but found another document"),
    ],
)
def test_what_is_no_plain_value_is_refused(text, problem):
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "x")
    assert problem in str(caught.value)
