import pytest
import torch
from torch import nn

from moebius.lab.model.build import build_model
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.routers.argmax import Argmax
from moebius.routers.soft import Soft

X = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 5, "domains": 1}
LINEAR = {"kind": "linear"}


def test_it_is_the_best_weighted_expert_and_nothing_else_changes():
    torch.manual_seed(0)
    model = build_model({"gate": LINEAR, "experts": {"kind": "linear", "count": 3}}, FACTS).eval()
    whole, chosen = model(X), model.gate(X).argmax(-1)
    with cut_to_one_expert(model):
        cut = model(X)
    by_hand = torch.stack([expert(X) for expert in model.experts], 1)[torch.arange(40), chosen]
    torch.testing.assert_close(cut, by_hand)
    assert isinstance(model.router, Soft)
    assert torch.equal(model(X), whole)


def test_only_one_path_of_a_tree_runs():
    torch.manual_seed(0)
    inner = {"kind": "mixture", "gate": LINEAR, "experts": {"kind": "linear", "count": 2}, "count": 2}
    model = build_model({"gate": LINEAR, "experts": inner}, FACTS).eval()
    for mixture in model.experts:
        mixture.experts = nn.ModuleList(mixture.experts.unstacked())  # a stack does not call its experts
    rows = []
    for part in model.modules():
        if type(part).__name__ == "Linear" and not isinstance(part, nn.Linear) and part not in _gates(model):
            part.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    with cut_to_one_expert(model):
        model(X)
    assert sum(rows) == len(X)


def _gates(model):
    return [model.gate, *(expert.gate for expert in model.experts)]


def test_what_runs_one_expert_loses_nothing(small_data, settings, build, tmp_path, alone):
    data = small_data()
    trained = alone(build(data, router={"kind": "argmax"}), data, settings(epochs=1), 0, tmp_path).train()
    assert isinstance(trained.model.router, Argmax)
    assert trained.one_expert is not None
    assert torch.equal(trained.one_expert.predictions, trained.test.predictions)
    assert trained.test.active_experts() == 1.0


def test_a_single_expert_has_nothing_to_cut(small_data, settings, build, tmp_path, alone):
    data = small_data()
    single = build(data, gate={"kind": "uniform"}, experts={"kind": "linear"})
    assert alone(single, data, settings(epochs=1), 0, tmp_path).train().one_expert is None


@pytest.mark.parametrize(
    ("weights", "mean"), [([[1.0, 0.0], [0.5, 0.5]], 1.5), ([[torch.nan, torch.nan], [0.1, 0.0]], 1.0)]
)
def test_active_experts_are_those_with_a_weight(weights, mean):
    from moebius.lab.training.evaluation import Evaluation

    none = torch.zeros(2)
    rows = Evaluation(none.long(), none.long(), none.long(), none, none, none, {"gate": torch.tensor(weights)})
    assert rows.active_experts() == mean
