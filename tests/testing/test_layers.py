"""Each check of layers finds the layer that breaks it."""

import itertools

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.testing.layers import CHECKS

COUNT = itertools.count(1)


class Layer(mb.layers.SparseFFN):
    """A layer that breaks nothing."""

    def __init__(self, dim: int):
        super().__init__(dim, 4, experts=3, k=2)


class Flat(Layer):
    def forward(self, x, mask=None):
        return super().forward(x, mask).flatten(0, 1)


class AcrossSequences(Layer):
    def forward(self, x, mask=None):
        return super().forward(x, mask) + x.mean((0, 1))


class ByPlace(Layer):
    def forward(self, x, mask=None):
        return super().forward(x, mask).cumsum(1)


class InPlace(Layer):
    def forward(self, x, mask=None):
        x += 1
        return super().forward(x, mask)


class Noisy(Layer):
    def forward(self, x, mask=None):
        return super().forward(x, mask) + torch.rand(())


class Counts(Layer):
    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("forwards", torch.zeros(()))

    def forward(self, x, mask=None):
        self.forwards += 1
        return super().forward(x, mask)


class Unused(Layer):
    def __init__(self, dim: int):
        super().__init__(dim)
        self.scale = nn.Parameter(torch.ones(()))


class Forgets(Layer):
    def __init__(self, dim: int):
        super().__init__(dim)
        self.factor = next(COUNT)

    def forward(self, x, mask=None):
        return self.factor * super().forward(x, mask)


class Dense(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        return self.linear(x)


BROKEN = {
    "gives_one_output_for_each_token": (Flat, r"outputs of shape \(15, 64\) for \(3, 5\) tokens"),
    "treats_sequences_by_themselves": (AcrossSequences, "gives a sequence other outputs alone than among others"),
    "permuting_tokens_permutes_outputs": (ByPlace, "treats tokens by their place"),
    "gives_the_same_twice_in_eval_and_leaves_its_input": (InPlace, "changes its input in place"),
    "keeps_its_state_where_there_are_no_tokens": (Counts, "changes its state in a batch without tokens: forwards"),
    "passes_a_gradient_to_every_parameter_and_the_input": (Unused, "passes no gradient to scale"),
    "gives_the_same_once_loaded": (Forgets, "other outputs once its state dict is loaded"),
    "records_a_routing_of_every_token": (Dense, r"records routings of \[\] rows for 15 tokens"),
    "leaves_padding_out": (Dense, "gives padding an output that is not 0"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_layer_is_named(breaks, name):
    breaks(CHECKS, name, "layers", *BROKEN[name])


def test_noise_in_eval(breaks):
    name = "gives_the_same_twice_in_eval_and_leaves_its_input"
    breaks(CHECKS, name, "layers", Noisy, "gives other outputs for the same tokens in eval")
