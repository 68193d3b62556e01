import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data import load_sets
from moebius.lab.data.sources import Sklearn


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [
        ("iris", 150, 4, ("setosa", "versicolor", "virginica")),
        ("wine", 178, 13, ("class_0", "class_1", "class_2")),
        ("breast_cancer", 569, 30, ("benign", "malignant")),
        ("digits", 1797, 64, tuple("0123456789")),
    ],
)
def test_tables_of_classes(name, rows, features, classes):
    data = load_sets([Sklearn(name)], 8)
    assert (len(data.train) + len(data.test), data.facts["features"], data.classes) == (rows, features, classes)
    assert data.domains == (name,)


def test_the_smaller_class_of_tumours_is_the_malignant_one():
    data = load_sets([Sklearn("breast_cancer")], 8)
    counts = (data.train.labels.bincount() + data.test.labels.bincount()).tolist()
    assert counts == [357, 212]


def test_a_table_of_numbers_is_in_its_own_units():
    table = Sklearn("diabetes").open().read()
    assert table.target_types == ("numbers",)
    assert (table.targets["target"].min(), table.targets["target"].max()) == (25, 346)
    assert table.features["age"].between(19, 79).all()
    assert Sklearn("diabetes", categories=["sex"]).open().read().categories == ("sex",)


def test_other_names_are_refused():
    with pytest.raises(ArgumentError, match="name: needs one of iris, wine") as caught:
        Sklearn("irises")
    assert caught.value.fix == "did you mean iris?"
    with pytest.raises(ArgumentError, match=r"^test: "):
        Sklearn("iris", test=0.0)
