import pytest

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources import CSV

TEXT = "age;city;member;bought\n" + "".join(
    f"{20 + row % 40 if row % 7 else '?'};{['Rome', 'Oslo', ''][row % 3]};{row % 2};{'yes' if row % 4 else 'no'}\n"
    for row in range(100)
)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "customers.csv"
    file.write_text(TEXT, encoding="utf-8")
    return file


def test_a_file_becomes_data(path):
    source = CSV(str(path), "bought", categories=["member"], separator=";", missing=["?"])
    assert source.name == "customers"
    data = load_sets([source], 8)
    assert data.columns.features == ("age", "age is missing", "city", "member")
    assert (data.classes, data.domains, data.facts["cardinalities"]) == (("no", "yes"), ("customers",), [3, 3])
    assert (len(data.train), len(data.test)) == (80, 20)


def test_the_data_folder_is_searched(path, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    source = CSV("customers.csv", "bought", separator=";", missing=["?"])
    assert len(load_sets([source], 8, data_dir=path.parent).test) == 20
    with pytest.raises(DataError, match="there is no such file"):
        load_sets([source], 8)


def test_every_option_that_changes_rows_changes_the_identity(path):
    base = {"path": str(path), "target": "bought", "separator": ";"}
    options = [
        {},
        {"columns": ["age"]},
        {"drop": ["age"]},
        {"categories": ["member"]},
        {"numbers": ["member"]},
        {"target_type": "classes"},
        {"test": 0.3},
        {"group": "city"},
        {"time": "age"},
        {"seed": 1},
        {"separator": ","},
        {"missing": ["?"]},
    ]
    identities = [CSV(**{**base, **each}).open().identity for each in options]
    assert len(set(identities)) == len(options)
    path.write_text(TEXT + "1;Rome;0;no\n", encoding="utf-8")
    assert CSV(**base).open().identity not in identities


def test_wrong_arguments_are_refused():
    for arguments, name in (
        ({"path": ""}, "path"),
        ({"target": ""}, "target"),
        ({"separator": ", "}, "separator"),
        ({"test": 2.0}, "test"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name}: ") as caught:
            CSV(**{"path": "rows.csv", "target": "y", **arguments})
        assert caught.value.fix
