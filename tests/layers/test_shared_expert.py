import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return mb.layers.SparseFFN(8, 6, experts=4, k=2), mb.experts.FFN(8, 12), mb.gates.Linear(8, 1, bias=False)


X = torch.linspace(-2, 2, 48).view(2, 3, 8)


def test_it_is_the_sum_by_hand(parts):
    layer, expert, gate = parts
    y = mb.layers.SharedExpert(layer, expert, gate)(X)
    torch.testing.assert_close(y, layer(X) + 1 / (1 + (-gate(X)).exp()) * expert(X))


def test_without_a_gate_it_is_a_sparse_layer_with_shared_experts(parts):
    whole = mb.layers.SparseFFN(8, 6, experts=4, k=2, shared=2)
    layer = mb.layers.SparseFFN(8, 6, experts=4, k=2)
    layer.mixture.load_state_dict(whole.mixture.state_dict())
    assert torch.equal(mb.layers.SharedExpert(layer, whole.block)(X), whole(X))


def test_another_number_of_scores_is_refused(parts):
    with pytest.raises(ArgumentError, match="must give one score for each token") as caught:
        mb.layers.SharedExpert(*parts[:2], mb.gates.Linear(8, 2))(X)
    assert caught.value.fix == "mb.gates.Linear(8, 1, bias=False)"


def test_it_comes_back_from_its_folder(parts, tmp_path):
    layer = mb.layers.SharedExpert(*parts).eval()
    mb.save(layer, tmp_path)
    assert torch.equal(mb.load(tmp_path)(X), layer(X))
