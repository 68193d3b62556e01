"""Packed weights: the same outputs, and what runs instead where they do not apply."""

import copy

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.networks.feed_forward import FEED_FORWARD

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def layer(dtype=torch.float32, **options):
    torch.manual_seed(0)
    return mb.layers.SparseFFN(16, 24, experts=5, k=2, **options).to(dtype)


def name(layer, x):
    with torch.no_grad():
        return layer.mixture.chosen(x).name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("activation", FEED_FORWARD)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 40])
def test_outputs_are_those_of_the_layer_before(dtype, activation, bias, rows):
    plain = layer(dtype, activation=activation, bias=bias)
    packed = copy.deepcopy(plain).prepare_inference()
    x = torch.randn(rows, 16).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), plain(x), rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def test_it_runs_where_nothing_needs_gradients():
    packed, x = layer().prepare_inference(), torch.randn(6, 16)
    assert name(packed, x) == "packed"
    assert not packed.training
    assert packed.mixture.chosen(x).name == "sorted"  # with gradients
    calls = []
    execution = packed.mixture.execution
    outputs = execution._outputs
    execution._outputs = lambda *arguments: (calls.append(1), outputs(*arguments))[1]
    packed(x).sum().backward()
    assert calls == []
    with torch.inference_mode():
        packed(x)
    assert calls == [1]


def test_a_row_or_two_read_the_weights_as_they_are():
    packed = layer().prepare_inference()
    assert [name(packed, torch.randn(rows, 16)) for rows in (1, 2, 3)] == ["gather", "gather", "packed"]


def test_gradients_are_those_of_the_layer_before():
    plain, x = layer(), torch.randn(6, 16)
    packed = copy.deepcopy(plain).prepare_inference()
    for model in (plain, packed):
        model(x).square().sum().backward()
    for before, after in zip(plain.parameters(), packed.parameters(), strict=True):
        torch.testing.assert_close(after.grad, before.grad)


def test_changed_weights_are_not_read_from_the_packed_ones():
    packed, x = layer().prepare_inference(), torch.randn(6, 16)
    with torch.no_grad():
        packed.mixture.experts.outer_weight.mul_(2)
        expected = copy.deepcopy(packed)(x)
        assert packed.mixture.chosen(x).name == "sorted"
        torch.testing.assert_close(packed(x), expected)
        again = packed.prepare_inference()
        torch.testing.assert_close(again(x), expected, rtol=1e-5, atol=1e-5)


def test_other_formats_run_as_before():
    packed, x = layer().prepare_inference().double(), torch.randn(6, 16).double()
    assert name(packed, x) == "sorted"
    with torch.no_grad():
        assert packed(x).dtype == torch.float64


def test_copies_and_files_are_not_packed(tmp_path):
    packed, x = layer().prepare_inference(), torch.randn(6, 16)
    assert packed.execution == "auto"
    mb.save(packed, tmp_path / "layer")
    for other in (copy.deepcopy(packed), mb.load(tmp_path / "layer")):
        assert other.mixture.execution.name == "auto"
        with torch.no_grad():
            torch.testing.assert_close(other(x), packed(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ArgumentError, match=r"(?s)in float32 or bf16, got 'torch.float64 on cpu'.*fix: layer.float"):
        layer(torch.float64).prepare_inference()
