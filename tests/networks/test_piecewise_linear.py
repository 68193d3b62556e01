import numpy as np
import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.networks.piecewise_linear import PiecewiseLinear


def encoded_by_the_formula(x: float, edges: list[float]) -> list[float]:
    """Equation 1 of the paper, bin by bin; a bin without width gives 0."""
    last = max(place for place in range(1, len(edges)) if edges[place] > edges[place - 1])
    values = []
    for place in range(1, len(edges)):
        left, right = edges[place - 1], edges[place]
        if left == right or (x < left and place > 1):
            values.append(0.0)
        elif x >= right and place < last:
            values.append(1.0)
        else:
            values.append((x - left) / (right - left))
    return values


def test_it_is_the_formula_in_values_and_gradients():
    rows = torch.randn(50, 3, dtype=torch.float64)
    encoding = PiecewiseLinear(3, 5).double()
    encoding.fit_rows(rows)
    x = (torch.randn(20, 3, dtype=torch.float64) * 2).requires_grad_()
    expected = [
        [
            value
            for number, edges in zip(row, encoding.edges, strict=True)
            for value in encoded_by_the_formula(number.item(), edges.tolist())
        ]
        for row in x
    ]
    torch.testing.assert_close(encoding(x), torch.tensor(expected, dtype=torch.float64))
    torch.autograd.gradcheck(encoding, [x])


def test_edges_are_the_quantiles_of_the_rows():
    rows = torch.randn(31, 2)
    encoding = PiecewiseLinear(2, 4)
    encoding.fit_rows(rows)
    expected = np.quantile(rows.numpy(), [0, 0.25, 0.5, 0.75, 1], axis=0).T
    torch.testing.assert_close(encoding.edges, torch.tensor(expected).float())
    assert torch.equal(encoding.state_dict()["edges"], encoding.edges)
    shuffled = PiecewiseLinear(2, 4)
    shuffled.fit_rows(rows.flip(0))
    assert torch.equal(shuffled.edges, encoding.edges)


def test_without_rows_a_bin_holds_the_same_share_of_a_normal_distribution():
    edges = PiecewiseLinear(1, 4).edges[0]
    inner = torch.special.ndtr(edges[1:-1])
    torch.testing.assert_close(inner, torch.tensor([0.25, 0.5, 0.75]))


def test_equal_quantiles_become_one_edge():
    encoding = PiecewiseLinear(2, 4)
    # An indicator, 1 in one of ten rows; and a constant.
    rows = torch.stack([torch.tensor([1.0, *[0.0] * 9]), torch.full((10,), 2.0)], 1)
    encoding.fit_rows(rows)
    assert encoding.edges.tolist() == [[0, 1, 1, 1, 1], [2, 2, 2, 2, 2]]
    values = encoding(torch.tensor([[0.0, 2.0], [1.0, 2.0], [3.0, 5.0]]))
    assert values.tolist() == [[0] * 8, [1, *[0] * 7], [3, *[0] * 7]]


def test_in_half_precision_it_is_the_same_but_for_rounding():
    encoding, x = PiecewiseLinear(2, 8), torch.randn(40, 2)
    half = encoding(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), encoding(x.bfloat16().float()), rtol=0.01, atol=0.01)


def test_rows_are_needed():
    with pytest.raises(ArgumentError, match="rows: needs at least one row") as caught:
        PiecewiseLinear(1, 2).fit_rows(torch.zeros(0, 1))
    assert caught.value.fix


@pytest.mark.parametrize(("columns", "bins", "name"), [(0, 2, "columns"), (2, 0, "bins")])
def test_numbers_below_1_are_refused(columns, bins, name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        PiecewiseLinear(columns, bins)
