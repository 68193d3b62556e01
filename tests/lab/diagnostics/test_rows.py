import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics import RoutedRows


def test_what_is_not_said_follows_from_the_weights(make_rows):
    rows = make_rows([[0.5, 0.5, 0.0]])
    assert rows.probs is rows.weights
    assert rows.kept.tolist() == [[True, True, False]]
    assert (rows.k, rows.experts, len(rows)) == (3, 3, 1)


def test_of_a_routing_with_drops():
    routing = mb.routers.Switch(capacity=1.0).train()(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    rows = RoutedRows.from_routing(routing)
    assert rows.k == 1
    assert rows.kept.tolist() == [[True, False], [False, False]]
    assert rows.dropped.tolist() == [0, 1]
    assert rows.refused.tolist() == [[False, False], [True, False]]


def test_selections_that_a_router_did_not_need_are_no_drops():
    rows = RoutedRows.from_routing(mb.routers.Threshold(0.9)(torch.tensor([[1.0, 1.0, -9.0]])))
    assert rows.kept.tolist() == [[True, True, False]]
    assert rows.dropped is None or rows.dropped.tolist() == [0]


def test_parts_are_joined(make_rows):
    rows = make_rows(torch.rand(6, 3).numpy(), groups={"class": [0, 1, 0, 1, 0, -1]}, losses=range(6))
    joined = RoutedRows.join([rows.take(slice(0, 2)), rows.take(torch.tensor([2, 3, 4, 5]))])
    assert torch.equal(joined.weights, rows.weights)
    assert torch.equal(joined.groups["class"], rows.groups["class"])
    assert torch.equal(joined.losses, rows.losses)


def test_shares_are_of_absolute_weights_and_a_row_of_zeros_stays(make_rows):
    rows = make_rows([[-3.0, 1.0], [0.0, 0.0]])
    assert rows.shares.tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert rows.has_negative


def test_sums_by_group_leave_out_rows_without_one(make_rows):
    rows = make_rows(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], groups={"class": [1, -1, 1]}, names={"class": ["a", "b", "c"]}
    )
    assert rows.sum_by_group("class", rows.weights).tolist() == [[0, 0], [6, 8], [0, 0]]
    assert rows.group_sizes("class").tolist() == [0, 2, 0]
    assert rows.crosstab("class").tolist() == [[0, 0], [0, 2], [0, 0]]
    assert rows.sum_by_top(rows.weights).tolist() == [[0, 0], [9, 12]]


def test_padding_may_hold_anything(make_rows):
    rows = make_rows([[1.0, 0.0], [float("nan"), 1.0]])
    padded = RoutedRows(rows.weights, real=torch.tensor([True, False]))
    padded.unpadded.check()
    assert len(padded.unpadded) == 1
    with pytest.raises(ArgumentError, match="row 1 has others"):
        rows.check()
    empty = RoutedRows(rows.weights, real=torch.tensor([False, False]))
    assert len(empty.unpadded) == 0


def test_a_group_below_that_of_none_is_refused(make_rows):
    with pytest.raises(ArgumentError, match="groups: needs indices of the 1 names, 0 to 0, got -2"):
        make_rows([[1.0], [1.0]], groups={"class": [0, -2]}).check()
