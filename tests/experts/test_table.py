import pytest
import torch

import moebius as mb
from moebius.experts import Table
from moebius.kit.errors import ArgumentError
from moebius.testing import check_expert

ROWS = torch.cat([torch.randn(8, 2), torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]] * 2)], 1)


@pytest.mark.parametrize("numeric", ["plain", "piecewise", "periodic"])
@pytest.mark.parametrize("arguments", [{}, {"residual": True, "hidden": [6, 6, 6]}, {"hidden": []}])
def test_it_keeps_the_contract_on_rows_of_a_table(numeric, arguments):
    # Enough frequencies for a mean of a row, and few enough numbers for finite differences.
    options = {"embedding": 2, "frequencies": 3, "bins": 3, "frequency_scale": 0.2}
    check_expert(Table, x=ROWS, cardinalities=[3, 2], numeric=numeric, **options, **arguments)


def test_it_is_dense_layers_on_the_encoded_row():
    table = Table(4, 5, [3, 2], hidden=[7])
    expected = table.network.dense(table.network.encoder(ROWS))
    assert torch.equal(table(ROWS), expected)
    assert table(ROWS).shape == (8, 5)


def test_without_categories_and_hidden_layers_it_is_linear():
    table, linear = Table(4, 5, hidden=[]), mb.experts.Linear(4, 5)
    linear.load_state_dict(
        {
            "linear.weight": table.network.dense.layers[0].weight.detach(),
            "linear.bias": table.network.dense.layers[0].bias.detach(),
        }
    )
    torch.testing.assert_close(table(ROWS), linear(ROWS))


def test_residual_layers_add_their_input():
    table = Table(4, 5, [3, 2], hidden=[6, 6], residual=True).eval()
    first, second, last = table.network.dense.layers
    h = first(table.network.encoder(ROWS)).relu()
    torch.testing.assert_close(table(ROWS), last(h + second(h).relu()))


def test_bins_are_saved_and_loaded(tmp_path):
    parts = [Table(4, 5, [3, 2], numeric="piecewise", bins=4) for _ in range(2)]
    parts[0].fit_rows(ROWS)
    parts[1].load_state_dict(parts[0].state_dict())
    assert torch.equal(parts[1](ROWS), parts[0](ROWS))
    assert parts[0].network.encoder.numbers.edges[0, -1] == ROWS[:, 0].max()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"features": 0}, "features: needs a whole number"),
        ({"classes": 0}, "classes: needs a whole number"),
        ({"hidden": [0]}, "hidden: needs whole numbers"),
        ({"hidden": [8, 16], "residual": True}, "hidden: needs equal widths for residual layers"),
        ({"activation": "cube"}, "activation: needs one of"),
        ({"dropout": 1}, "dropout: needs a number from 0 to below 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, rule):
    with pytest.raises(ArgumentError) as caught:
        Table(**{"features": 4, "classes": 5, **arguments})
    assert caught.value.message.startswith(rule)
    assert caught.value.fix


@pytest.mark.parametrize("numeric", ["plain", "piecewise", "periodic"])
def test_equal_experts_at_once_are_the_loop(numeric):
    """Each with bins of its own, in outputs and in every gradient."""
    experts = []
    for seed in range(3):
        torch.manual_seed(seed)
        experts.append(mb.experts.Table(4, 5, [3, 2], [6, 6], numeric=numeric, residual=True).double())
        experts[-1].fit_rows(torch.randn(9, 4, dtype=torch.float64))
    moe, x = mb.Mixture(mb.gates.Linear(4, 3).double(), experts), ROWS.double()
    results = []
    for execution in (mb.execution.Loop(), mb.execution.Stacked()):
        moe.execution = execution
        y = moe(x)
        results.append((y, torch.autograd.grad(y.square().sum(), list(moe.parameters()))))
    torch.testing.assert_close(results[0], results[1])
