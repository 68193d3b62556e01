"""Context and the place of rows follow the rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import moebius as mb
from moebius.core.row_context import RowContext, current_context, row_context
from moebius.kit.errors import ArgumentError


def as_lists(context):
    return {name: value.tolist() for name, value in context.local_values().items()}


def list_values(context):
    return {name: value.tolist() for name, value in context.local_values().items()}


def test_local_values_are_those_of_the_rows():
    context = RowContext({"domain": torch.tensor([10, 11, 12, 13])}).select_rows(torch.tensor([3, 1]))
    assert context.local_values()["domain"].tolist() == [13, 11]
    assert context.rows.tolist() == [3, 1]


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), max_size=4))
def test_going_deeper_is_indexing_again_and_again(levels):
    context, domain = RowContext({"domain": torch.arange(100, 107)}), torch.arange(100, 107)
    for numbers in levels:
        rows = torch.tensor([number % len(domain) for number in numbers])
        context, domain = context.select_rows(rows), domain[rows]
        assert context.local_values()["domain"].tolist() == domain.tolist()
        assert (context.rows + 100).tolist() == domain.tolist()


def test_tokens_have_their_sequences_values():
    context = RowContext({"domain": torch.tensor([5, 6])}).repeat_rows(3)
    assert context.local_values()["domain"].tolist() == [5, 5, 5, 6, 6, 6]
    assert context.rows is None
    branch = RowContext({"domain": torch.tensor([5, 6, 7])}).select_rows(torch.tensor([2, 0])).repeat_rows(2)
    assert branch.local_values()["domain"].tolist() == [7, 7, 5, 5]
    assert branch.rows.tolist() == [2, 2, 0, 0]


def test_values_given_inside_a_branch_are_those_of_its_rows():
    branch = RowContext({"domain": torch.tensor([5, 6, 7])}).select_rows(torch.tensor([2, 0]))
    context = branch.with_values({"tint": torch.tensor([1, 2])})
    assert list_values(context) == {"domain": [7, 5], "tint": [1, 2]}
    assert context.rows.tolist() == [2, 0]


def test_context_ends_with_its_block_and_inner_values_win():
    with mb.context(domain=torch.tensor([1]), tint=torch.tensor([2])):
        with mb.context(domain=torch.tensor([3])):
            assert list_values(current_context()) == {"domain": [3], "tint": [2]}
        assert list_values(current_context()) == {"domain": [1], "tint": [2]}
    assert current_context() == RowContext()


def test_context_ends_when_the_block_raises():
    with pytest.raises(KeyError), mb.context(domain=torch.tensor([1])):
        raise KeyError
    with pytest.raises(KeyError), row_context(RowContext({"domain": torch.tensor([1])})):
        raise KeyError
    assert current_context() == RowContext()


def test_the_real_rows_of_a_masked_call():
    mask = torch.tensor([[True, False], [False, False], [True, True]])
    x = torch.arange(12.0).view(3, 2, 2)
    context, real_rows, padding = RowContext({"domain": torch.tensor([5, 6, 7])}, mask=mask).remove_padding(x)
    assert real_rows.tolist() == [[0, 1], [8, 9], [10, 11]]
    assert context.rows.tolist() == [0, 4, 5]
    assert context.local_values()["domain"].tolist() == [5, 7, 7]
    assert context.mask is None
    assert padding.restore_rows(real_rows).tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]], [[8, 9], [10, 11]]]


def test_whole_numbers_may_be_rows_without_an_axis_of_features():
    token_ids, mask = torch.arange(6).view(3, 2), torch.tensor([[True, False], [False, False], [True, True]])
    assert RowContext(mask=mask).remove_padding(token_ids)[1].tolist() == [0, 4, 5]
    with pytest.raises(mb.ArgumentError, match="mask: needs the batch axes"):
        RowContext(mask=mask).remove_padding(token_ids.float())


def test_masks_that_cannot_say_what_a_row_is():
    layer, x = mb.layers.SparseFFN(4, 6, experts=2), torch.zeros(2, 3, 4)
    with pytest.raises(ArgumentError, match="needs the batch axes") as caught:
        layer(x, mask=torch.tensor(True))
    assert caught.value.value == ()
    mask = torch.tensor([[True, False, True], [False, True, True]])
    with pytest.raises(ArgumentError, match="cannot differ under"):
        torch.func.vmap(layer)(x, mask)
    with pytest.raises(ArgumentError, match="cannot differ under"):
        torch.func.vmap(torch.func.grad(lambda x, mask: layer(x, mask).sum()))(x, mask)
    # The same rows of all are no matter of values.
    outputs = torch.func.vmap(lambda x: layer(x, mask[0]))(x)
    torch.testing.assert_close(outputs, torch.stack([layer(rows, mask[0]) for rows in x]))
