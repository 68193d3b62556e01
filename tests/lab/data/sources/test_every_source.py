"""What holds for every data source; a new one is tested by its file. Those that need arguments are read elsewhere."""

import inspect
from collections import Counter

import numpy as np
import pytest

from moebius.kit.registry import find, kinds
from moebius.lab.data import load_sets
from moebius.lab.data.raw import Source

KINDS = kinds("data.sources")


def has_defaults(kind: str) -> bool:
    parameters = inspect.signature(find("data.sources", kind)).parameters.values()
    return all(parameter.default is not parameter.empty for parameter in parameters)


every_source = pytest.mark.parametrize("kind", KINDS)
every_source_with_defaults = pytest.mark.parametrize("kind", [kind for kind in KINDS if has_defaults(kind)])


@every_source
def test_a_source_keeps_the_contract(kind):
    component = find("data.sources", kind)
    assert issubclass(component, Source)
    assert not inspect.isabstract(component)


@every_source_with_defaults
def test_every_row_is_read_with_its_label_and_every_pass_gives_the_same_rows(kind):
    contents = find("data.sources", kind)().open().read()
    assert len(set(contents.classes)) == len(contents.classes)
    for rows in (contents.train, contents.test):
        first_pass, second_pass = list(rows), list(rows)
        assert len(first_pass) == len(rows) > 0
        names = [row.label if isinstance(row.label, str) else contents.classes[row.label] for row in first_pass]
        assert set(names) == set(contents.classes)
        for row, same_row in zip(first_pass, second_pass, strict=True):
            assert np.array_equal(row.image, same_row.image)
            assert row.label == same_row.label
        assert max(Counter(row.where for row in first_pass).values()) == 1


@every_source_with_defaults
def test_equal_sources_have_one_identity_and_one_name(kind):
    component = find("data.sources", kind)
    assert component().open().identity == component().open().identity
    assert component().name == component().name != ""


@every_source_with_defaults
def test_the_rows_do_not_depend_on_the_global_generator(kind, tmp_path):
    component = find("data.sources", kind)
    # The legacy state is the global one, which a source must not read.
    np.random.seed(1)  # noqa: NPY002
    data = load_sets([component()], 8, cache_dir=tmp_path / "first")
    np.random.seed(2)  # noqa: NPY002
    assert load_sets([component()], 8, cache_dir=tmp_path / "second").fingerprint == data.fingerprint


def test_no_two_sources_share_an_identity():
    identities = [find("data.sources", kind)().open().identity for kind in KINDS if has_defaults(kind)]
    assert len(set(identities)) == len(identities)
