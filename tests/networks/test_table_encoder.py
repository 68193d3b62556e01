import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.networks import TableEncoder

ROWS = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.5, 3.0, 1.0, 1.0], [2.5, 0.0, 0.0, 1.0]])


def test_numbers_stand_first_and_then_an_embedding_of_each_category():
    encoder = TableEncoder(4, cardinalities=[3, 2], embedding=5)
    vectors = encoder(ROWS)
    assert vectors.shape == (3, encoder.outputs) == (3, 12)
    assert torch.equal(vectors[:, :2], ROWS[:, :2])
    tables = encoder.embeddings.weight.split([3, 2])
    for row, vector in zip(ROWS, vectors, strict=True):
        expected = torch.cat([table[int(code)] for table, code in zip(tables, row[2:], strict=True)])
        assert torch.equal(vector[2:], expected)


@pytest.mark.parametrize("code", [-1.0, 3.0, 1e9, -torch.inf, torch.nan])
def test_a_code_of_no_category_is_an_unknown_one(code):
    encoder = TableEncoder(1, cardinalities=[3])
    assert torch.equal(encoder(torch.tensor([[code]])), encoder(torch.tensor([[0.0]])))


def test_a_table_of_a_column_trains_for_it_alone():
    encoder = TableEncoder(4, cardinalities=[3, 2], embedding=2)
    encoder(ROWS[:1]).sum().backward()
    assert encoder.embeddings.weight.grad.sum(1).tolist() == [0, 0, 2, 2, 0]


@pytest.mark.parametrize(("numeric", "width"), [("plain", 2), ("piecewise", 6), ("periodic", 8)])
def test_numbers_have_features_of_their_own(numeric, width):
    encoder = TableEncoder(4, [3, 2], 5, numeric, bins=3, frequencies=2)
    assert encoder(ROWS).shape == (3, encoder.outputs) == (3, width + 10)
    assert TableEncoder(2, (), 5, numeric, bins=3, frequencies=2).outputs == width
    assert TableEncoder(2, [3, 2], 5, numeric).outputs == 10  # without numbers


def test_rows_make_the_bins_of_numbers_alone():
    encoder = TableEncoder(4, [3, 2], numeric="piecewise", bins=2)
    encoder.fit_rows(ROWS)
    assert encoder.numbers.edges.tolist() == [[0.5, 1.5, 2.5], [-1.0, 0.0, 3.0]]
    encoder.fit_rows(torch.zeros(7, 9))  # the outputs of another network
    assert encoder.numbers.edges.tolist() == [[0.5, 1.5, 2.5], [-1.0, 0.0, 3.0]]


def test_further_axes_stay():
    encoder = TableEncoder(4, [3, 2], numeric="piecewise")
    torch.testing.assert_close(encoder(ROWS.expand(2, 3, 4))[1], encoder(ROWS))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"features": 0}, "features: needs a whole number"),
        ({"cardinalities": [3, 0]}, "cardinalities: needs whole numbers of at least 1"),
        ({"cardinalities": [2, 2, 2, 2, 2]}, "cardinalities: needs at most as many numbers as there are features, 4"),
        ({"embedding": 0}, "embedding: needs a whole number"),
        ({"numeric": "quantile"}, "numeric: needs one of plain, piecewise, periodic, got 'quantile'"),
        ({"bins": 0}, "bins: needs a whole number"),
        ({"frequencies": 0}, "frequencies: needs a whole number"),
        ({"frequency_scale": 0.0}, "frequency_scale: needs a number above 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, rule):
    with pytest.raises(ArgumentError) as caught:
        TableEncoder(**{"features": 4, **arguments})
    assert caught.value.message.startswith(rule)
    assert caught.value.fix
