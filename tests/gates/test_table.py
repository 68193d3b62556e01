import pytest
import torch

import moebius as mb
from moebius.gates import Table
from moebius.kit.errors import ArgumentError
from moebius.testing import check_gate

ROWS = torch.cat([torch.randn(8, 2), torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]] * 2)], 1)


@pytest.mark.parametrize("numeric", ["plain", "piecewise", "periodic"])
@pytest.mark.parametrize("arguments", [{}, {"residual": True, "hidden": [6, 6, 6]}, {"hidden": []}])
def test_it_keeps_the_contract_on_rows_of_a_table(numeric, arguments):
    # Enough frequencies for a mean of a row, and few enough numbers for finite differences.
    options = {"embedding": 2, "frequencies": 3, "bins": 3, "frequency_scale": 0.2}
    check_gate(Table, x=ROWS, cardinalities=[3, 2], numeric=numeric, **options, **arguments)


def test_it_is_dense_layers_on_the_encoded_row():
    table = Table(4, 3, [3, 2], hidden=[7])
    expected = table.network.dense(table.network.encoder(ROWS))
    assert torch.equal(table(ROWS), expected)
    assert table(ROWS).shape == (8, 3)


def test_without_categories_and_hidden_layers_it_is_linear():
    table, linear = Table(4, 3, hidden=[]), mb.gates.Linear(4, 3)
    linear.load_state_dict(
        {
            "linear.weight": table.network.dense.layers[0].weight.detach(),
            "linear.bias": table.network.dense.layers[0].bias.detach(),
        }
    )
    torch.testing.assert_close(table(ROWS), linear(ROWS))


def test_residual_layers_add_their_input():
    table = Table(4, 3, [3, 2], hidden=[6, 6], residual=True).eval()
    first, second, last = table.network.dense.layers
    h = first(table.network.encoder(ROWS)).relu()
    torch.testing.assert_close(table(ROWS), last(h + second(h).relu()))


def test_bins_are_saved_and_loaded(tmp_path):
    parts = [Table(4, 3, [3, 2], numeric="piecewise", bins=4) for _ in range(2)]
    parts[0].fit_rows(ROWS)
    parts[1].load_state_dict(parts[0].state_dict())
    assert torch.equal(parts[1](ROWS), parts[0](ROWS))
    assert parts[0].network.encoder.numbers.edges[0, -1] == ROWS[:, 0].max()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"features": 0}, "features: needs a whole number"),
        ({"experts": 0}, "experts: needs a whole number"),
        ({"hidden": [0]}, "hidden: needs whole numbers"),
        ({"hidden": [8, 16], "residual": True}, "hidden: needs equal widths for residual layers"),
        ({"activation": "cube"}, "activation: needs one of"),
        ({"dropout": 1}, "dropout: needs a number from 0 to below 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, rule):
    with pytest.raises(ArgumentError) as caught:
        Table(**{"features": 4, "experts": 3, **arguments})
    assert caught.value.message.startswith(rule)
    assert caught.value.fix
