"""Which rows are padding: by the model around a block, or by the context."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.integrations._masks import AttentionMasks

MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])


class Block(nn.Module):
    def forward(self, masks, rows):
        return masks.of_rows("inner.block", rows)


class Inner(nn.Module):
    """A model: it takes tokens."""

    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, input_ids=None, attention_mask=None, masks=None, rows=6):
        return self.block(masks, rows)


class Outer(nn.Module):
    """A model that hands on the mask as it is, or what it makes of it."""

    def __init__(self, change=lambda mask: mask):
        super().__init__()
        self.inner, self.change = Inner(), change

    def forward(self, input_ids, attention_mask=None, masks=None, rows=6):
        return self.inner(attention_mask=self.change(attention_mask), masks=masks, rows=rows)


@pytest.fixture
def of_rows():
    """Calls a model, and gives what its block knows of its rows' mask."""

    def call(model, *inputs, **keywords):
        masks = AttentionMasks(model, ["inner.block"])
        try:
            return model(None, *inputs, masks=masks, **keywords)
        finally:
            for handle in masks.handles:
                handle.remove()

    return call


@pytest.mark.parametrize("mask", [MASK, MASK.bool(), MASK.float()])
def test_by_keyword_and_by_position_in_any_format(of_rows, mask):
    expected = [False, True, True, True, True, True]
    assert of_rows(Outer(), attention_mask=mask).tolist() == expected
    assert of_rows(Outer(), mask).tolist() == expected


def test_the_last_columns_are_those_of_a_call_that_goes_on(of_rows):
    assert of_rows(Outer(), MASK, rows=2).tolist() == [True, True]
    assert of_rows(Outer(), MASK, rows=4).tolist() == [True, True, True, True]


@pytest.mark.parametrize("rows", [5, 8, 1])
def test_other_numbers_of_rows_have_no_mask(of_rows, rows):
    assert of_rows(Outer(), MASK, rows=rows) is None


@pytest.mark.parametrize("change", [lambda mask: None, lambda mask: mask[:, None, None], lambda mask: {"full": mask}])
def test_the_innermost_model_decides(of_rows, change):
    """A decoder without a mask does not have that of the encoder; what is no mask of tokens says nothing."""
    assert of_rows(Outer(change), MASK) is None
    assert of_rows(Outer(lambda mask: 1 - mask), MASK).tolist() == [True] + [False] * 5


def test_none_is_none(of_rows):
    assert of_rows(Outer()) is None


def test_the_context_comes_first(of_rows):
    with mb.context(mask=~MASK.bool()):
        assert of_rows(Outer(), MASK).tolist() == [True] + [False] * 5
        assert of_rows(Outer(), MASK, rows=4) is None
    with mb.context(mask=None):
        assert of_rows(Outer(), MASK).tolist() == [False] + [True] * 5


def test_a_layer_is_not_asked():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, hidden_states, attention_mask=None):
            return None

    assert AttentionMasks(nn.ModuleDict({"inner": Layer()}), ["inner.block"]).handles == []
