import copy

from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.merge import can_merge, comes_from_base, merge

KEYS = st.sampled_from(["a", "b", "kind", "count"])
MAPPINGS = st.recursive(
    st.dictionaries(KEYS, st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2), max_size=3),
    lambda inner: st.dictionaries(KEYS.filter(lambda key: key != "kind"), inner | st.integers(0, 2), max_size=3),
    max_leaves=8,
)


def paths(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from paths(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_literal():
    base = {"gate": {"kind": "mlp", "hidden": [64], "bias": True}, "experts": {"kind": "linear", "count": 2}}
    assert merge(base, {"experts": {"count": 3}, "gate": {"kind": "mlp", "hidden": [8, 8]}}) == {
        "gate": {"kind": "mlp", "hidden": [8, 8], "bias": True},
        "experts": {"kind": "linear", "count": 3},
    }
    assert merge(base, {"gate": {"kind": "uniform"}})["gate"] == {"kind": "uniform"}
    assert merge(base, {"experts": [{"kind": "linear"}]})["experts"] == [{"kind": "linear"}]
    assert merge([1], {"kind": "linear"}) == {"kind": "linear"}


@given(MAPPINGS)
def test_an_empty_variant_changes_nothing(base):
    assert merge(base, {}) == base


@given(MAPPINGS)
def test_over_nothing_stands_what_is_laid_over(over):
    assert merge({}, over) == over


@given(MAPPINGS, MAPPINGS)
def test_laying_it_over_twice_is_laying_it_over_once(base, over):
    once = merge(base, over)
    assert merge(once, over) == once


@given(MAPPINGS, MAPPINGS)
def test_every_value_laid_over_arrives_and_arguments_stay(base, over):
    before = copy.deepcopy((base, over))
    merged = merge(base, over)
    for path in paths(over):
        if not isinstance(at(over, path), dict):
            assert at(merged, path) == at(over, path)
    assert (base, over) == before


@given(MAPPINGS, MAPPINGS)
def test_the_result_shares_nothing_with_the_arguments(base, over):
    merged = merge(base, over)
    inner = {id(at(value, path)) for value in (base, over) for path in paths(value) if path}
    mutable = [at(merged, path) for path in paths(merged) if path]
    assert not [value for value in mutable if isinstance(value, dict | list) and id(value) in inner]


@given(MAPPINGS, MAPPINGS)
def test_a_value_that_comes_from_the_base_is_the_base_s(base, over):
    merged = merge(base, over)
    for path in paths(merged):
        if path and not isinstance(at(merged, path), dict):
            owner = base if comes_from_base(base, over, path) else over
            assert at(owner, path) == at(merged, path)


def test_what_is_missing_belongs_to_the_mapping_that_names_the_kind():
    base = {"gate": {"kind": "mlp"}}
    assert comes_from_base(base, {"gate": {"bias": 1}}, ("gate", "features"))
    assert not comes_from_base(base, {"gate": {"kind": "linear"}}, ("gate", "features"))


def test_only_mappings_of_one_kind_merge():
    assert can_merge({"kind": "a"}, {"x": 1})
    assert can_merge({"kind": "a"}, {"kind": "a"})
    assert not can_merge({"kind": "a"}, {"kind": "b"})
    assert not can_merge({"x": 1}, [1])
