import pytest
import torch

import moebius as mb
from moebius.combine.tempered import Tempered


def test_worked():
    routing = mb.routers.Soft()(torch.zeros(1, 2))
    values = torch.tensor([[[0.0, 4.0], [0.0, 8.0]]])
    torch.testing.assert_close(Tempered(temperature=3.0)(values, routing), torch.tensor([[0.0, 2.0]]))


def test_log_probabilities_stay_such():
    torch.manual_seed(0)
    routing, values = mb.routers.Soft()(torch.randn(7, 3)), torch.randn(7, 3, 4)
    y, plain = Tempered(mb.LogMixture(), 2.5)(values, routing), mb.LogMixture()(values, routing)
    torch.testing.assert_close(y.exp().sum(1), torch.ones(7))
    assert torch.equal(y.argmax(1), plain.argmax(1))
    torch.testing.assert_close(y, (plain / 2.5).log_softmax(1))


def test_a_temperature_of_1_changes_nothing():
    torch.manual_seed(0)
    routing, values = mb.routers.TopK(2)(torch.randn(7, 3)), torch.randn(14, 4)
    torch.testing.assert_close(Tempered(mb.LogMixture())(values, routing), mb.LogMixture()(values, routing))
    torch.testing.assert_close(Tempered()(values, routing), mb.WeightedSum()(values, routing))


def test_is_saved_and_loaded(tmp_path):
    experts = [mb.experts.Linear(4, 3) for _ in range(2)]
    moe = mb.Mixture(mb.gates.Linear(4, 2), experts, combine=Tempered(mb.LogMixture(), 2.0)).eval()
    mb.save(moe, tmp_path / "moe")
    again, x = mb.load(tmp_path / "moe"), torch.randn(5, 4)
    assert torch.equal(again(x), moe(x))
    assert again.combine.gives_log_probabilities


def test_refuses_what_it_cannot_use():
    with pytest.raises(mb.ArgumentError, match="temperature"):
        Tempered(temperature=0.0)
    with pytest.raises(mb.ArgumentError, match="combine"):
        Tempered({"kind": "log_mixture"})
