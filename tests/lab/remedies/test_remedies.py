"""What each remedy does to a mixture, to one inside a network or a tree, and to one that it cannot help."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.registry import find, kinds
from moebius.lab.data.split import Split
from moebius.lab.illnesses._illness import Finding
from moebius.lab.remedies import _fitting
from moebius.lab.remedies._case import Case, Obstacle, Remedy, Treatment
from moebius.lab.remedies._fresh import fresh
from moebius.lab.remedies._gate_fits import soft_form
from moebius.lab.remedies._gate_network import gate_network
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import evaluate
from moebius.lab.training.gate_places import find_gates
from moebius.tasks.classification import Classification
from moebius.tasks.regression import Regression

EVERY_REMEDY = pytest.mark.parametrize("kind", kinds("remedies"))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(_fitting, "EPOCH_STEPS", 10)
    monkeypatch.setattr(_fitting, "EPOCHS", 3)


@pytest.fixture
def case(mixtures):
    """The case of a model on the rows of two regimes."""

    def make(model, gate="gate", count=400, regimes=2, finding=None, task=None, **options):
        x, y = mixtures.rows(count, 1, regimes)
        split = Split(x, y, torch.zeros(count, dtype=torch.int64))
        task = (task or Classification()).for_model(model)
        return Case(ModelCall(model.eval(), **options), task, gate, split, finding)

    return make


def score(case, model):
    (evaluation,) = evaluate(case.call_of(model), case.task.for_model(model), case.rows)
    return evaluation.score


def tried(kind, case):
    return find("remedies", kind)(case)


def are_equal(first, second):
    return all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))


@EVERY_REMEDY
def test_declares_its_aim_and_leaves_the_model_as_it_is(kind, mixtures, case, short):
    model = mixtures.redundant()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    treatment = tried(kind, case(model))
    assert isinstance(find("remedies", kind).remedy, Remedy)
    assert isinstance(treatment, Treatment | Obstacle)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    if isinstance(treatment, Treatment):
        assert not {id(parameter) for parameter in model.parameters()} & {id(p) for p in treatment.model.parameters()}
        assert not treatment.model.training
        assert treatment.text


@EVERY_REMEDY
def test_the_changed_model_is_saved_and_loaded(kind, mixtures, case, short, tmp_path):
    names = {"add_expert": "one_short", "balance": "collapsed", "cut_to_top_k": "healthy"}
    treatment = tried(kind, case(getattr(mixtures, names.get(kind, "redundant"))()))
    assert isinstance(treatment, Treatment), treatment
    mb.save(treatment.model, tmp_path / "moe")
    x = mixtures.rows(20)[0]
    torch.testing.assert_close(mb.load(tmp_path / "moe").eval()(x), treatment.model(x))


def inside(where, mixtures):
    """A model with a mixture somewhere, and the name of its gate."""
    flat = mixtures.redundant()
    if where == "ffn":
        torch.manual_seed(0)
        return nn.Sequential(mb.layers.SparseFFN(6, 8, experts=4, k=2), nn.Linear(6, 2)), "0.mixture.gate"
    if where == "network":
        return mixtures.Network(flat), "moe.gate"
    if where == "tree":
        inner, outer = [flat, mixtures.healthy()], mixtures.gate([1.0, -1.0], [0.0, 0.0])
        return mixtures.mixture(outer, inner, combine=mb.WeightedSum()), "experts.0.gate"
    return mixtures.mixture(flat.gate, mb.Stack(list(flat.experts))), "gate"


@EVERY_REMEDY
@pytest.mark.parametrize("where", ["network", "tree", "stack", "ffn"])
def test_mixtures_inside_and_stacks(kind, where, mixtures, case, short):
    """A changed model that runs, or a plain reason."""
    model, gate = inside(where, mixtures)
    treatment = tried(kind, case(model, gate))
    if isinstance(treatment, Obstacle):
        assert kind in ("calibrate", "cut_to_top_k", "prune_expert"), treatment
        assert treatment.reason.strip()
        return
    x = mixtures.rows(30)[0]
    assert treatment.model(x).shape == model(x).shape
    assert gate in [place.name for place in find_gates(treatment.model)]


@pytest.mark.parametrize(
    "router", ["Argmax", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("Soft", "TopK"))]
)
def test_refitting_mends_a_gate(router, mixtures, case):
    options = {"k": 1} if router == "TopK" else {}
    ill = case(mixtures.inverted(getattr(mb.routers, router)(**options)), count=800)
    treatment = tried("refit_gate", ill)
    assert score(ill, ill.call.model) < 0.6
    assert score(ill, treatment.model) > 0.85
    assert type(treatment.model.router).__name__ == router
    assert all(are_equal(ill.call.model.experts[number], treatment.model.experts[number]) for number in (0, 1))


def test_refitting_trains_one_gate_of_a_tree(mixtures, case, short):
    model = mixtures.mixture(mixtures.gate([1.0, -1.0], [0.0, 0.0]), [mixtures.inverted(), mixtures.inverted()])
    treatment = tried("refit_gate", case(model, "experts.1.gate"))
    old, new = model.state_dict(), treatment.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert changed <= {"experts.1.gate.linear.weight", "experts.1.gate.linear.bias"}


def test_a_gate_that_cannot_be_trained_says_why(mixtures, case):
    experts = [mixtures.expert(1), mixtures.expert(2)]
    hashed = mixtures.mixture(mixtures.gate([1.0, 0.0], [0.0, 0.0]), experts, mb.routers.Hash())
    assert "reads no gate" in tried("refit_gate", case(hashed)).reason
    even = mixtures.mixture(mb.gates.Uniform(2), experts)
    assert "nothing to train" in tried("refit_gate", case(even)).reason
    frozen = mixtures.inverted()
    frozen.gate.requires_grad_(False)
    assert "gate.requires_grad_()" in tried("refit_gate", case(frozen)).reason


def test_the_form_that_trains_the_gate():
    assert soft_form(mb.routers.Soft(), 4) is None
    assert soft_form(mb.routers.NoisyTopK(2), 4) is None
    assert soft_form(mb.routers.Hash(), 4) is None
    cut = mb.routers.Cut(mb.routers.Soft(2.0))
    assert soft_form(cut, 4) is cut.router
    assert soft_form(mb.routers.TopK(1, "sigmoid"), 4).normalisation == "sigmoid"


@pytest.mark.slow
def test_balance_uses_experts_that_had_no_rows(mixtures, case):
    ill = case(mixtures.collapsed(), count=800)
    treatment = tried("balance", ill)
    assert _fitting.used_experts(ill, ill.call.model) < 1.01
    assert _fitting.used_experts(ill, treatment.model) > 1.9


def test_averaging_is_the_mean_of_the_experts(mixtures, case):
    experts = [mixtures.expert(1), mixtures.expert(2)]
    model = mixtures.mixture(mixtures.gate([3.0, -3.0], [0.0, 0.0]), experts, combine=mb.WeightedSum())
    treatment = tried("average", case(model))
    x = mixtures.rows(9)[0]
    torch.testing.assert_close(treatment.model(x), (experts[0](x) + experts[1](x)) / 2)
    assert isinstance(treatment.model.gate, mb.gates.Uniform)


class Sequences(nn.Module):
    """A mixture of whole sequences."""

    def __init__(self, moe):
        super().__init__()
        self.moe = moe

    def forward(self, x):
        return self.moe(x.unflatten(1, (2, 3)))


def test_averaging_keeps_the_batch_axes_of_a_gate_that_flattens(mixtures, case):
    # One row for each sequence, where `Uniform` has one for each of its places.
    gate, experts = mb.gates.Linear(6, 2), [nn.Sequential(nn.Flatten(), nn.Linear(6, 2)) for _ in range(2)]
    treatment = tried("average", case(Sequences(mb.Mixture(gate, experts)), "moe.gate"))
    x = mixtures.rows(9)[0]
    rows = x.unflatten(1, (2, 3))
    torch.testing.assert_close(treatment.model(x), (experts[0](rows) + experts[1](rows)) / 2)


def test_a_temperature_changes_no_answer(mixtures, case):
    ill = case(mixtures.overconfident(), count=2000)
    treatment = tried("calibrate", ill)
    x = mixtures.rows(500, 7)[0]
    assert torch.equal(treatment.model(x).argmax(1), ill.call.model(x).argmax(1))
    assert 2 < treatment.model.combine.temperature < 20
    losses = [
        float(evaluate(ill.call_of(model), ill.task, ill.rows)[0].loss) for model in (ill.call.model, treatment.model)
    ]
    assert losses[1] < losses[0]


def test_calibrating_is_for_classes_and_mixtures(mixtures, case):
    moe = mixtures.healthy()
    assert "classes" in tried("calibrate", case(moe, task=Regression())).reason
    assert "divide its logits" in tried("calibrate", case(mixtures.Network(moe), "moe.gate")).reason


def test_cuts_to_as_few_experts_as_the_loss_allows(mixtures, case):
    treatment = tried("cut_to_top_k", case(mixtures.healthy()))
    assert (type(treatment.model.router), treatment.model.router.k) == (mb.routers.Cut, 1)
    even = mixtures.mixture(mixtures.gate([0.0, 0.0], [0.0, 0.0]), [mixtures.expert(1), mixtures.expert(2)])
    assert "k = 1 costs" in tried("cut_to_top_k", case(even)).reason


def test_prunes_what_is_ignored_and_what_is_said_twice(mixtures, case, short):
    model = mixtures.redundant()
    ignored = Finding("", 0.0, 0.0, 0.0, 0.0, "", "", (3,), kind="ignored expert")
    assert len(tried("prune_expert", case(model, finding=ignored)).model.experts) == 3
    treatment = tried("prune_expert", case(model))
    assert len(treatment.model.experts) == 2
    assert "and 3 of 4 were dropped" in treatment.text
    assert "no expert is ignored" in tried("prune_expert", case(mixtures.healthy())).reason


def test_a_new_expert_serves_rows_that_none_served(mixtures, case):
    ill = case(mixtures.one_short(), count=900, regimes=3)
    treatment = tried("add_expert", ill)
    assert len(treatment.model.experts) == 3
    assert score(ill, treatment.model) > score(ill, ill.call.model) + 0.05
    assert all(are_equal(ill.call.model.experts[number], treatment.model.experts[number]) for number in (0, 1))


def test_a_new_expert_of_a_stack_leaves_the_others_as_they_are(mixtures, case, short):
    flat = mixtures.one_short()
    model = mixtures.mixture(flat.gate, mb.Stack([mixtures.expert(1), mixtures.expert(2)]))
    treatment = tried("add_expert", case(model, regimes=3))
    assert len(treatment.model.experts) == 3
    x = mixtures.rows(9)[0]
    for number in (0, 1):
        torch.testing.assert_close(treatment.model.experts[number](x), flat.experts[number](x), rtol=0, atol=0)


class FirstTask(nn.Module):
    """One of two tasks of a layer with a gate for each."""

    def __init__(self):
        super().__init__()
        gates = {name: mb.gates.Linear(6, 2) for name in ("first", "second")}
        self.layer = mb.layers.MultiGateMixture(gates, [nn.Linear(6, 2), nn.Linear(6, 2)])

    def forward(self, x):
        return self.layer(x)["first"]


def test_layers_of_several_gates_keep_their_experts(case, short):
    torch.manual_seed(0)
    model = FirstTask()
    for kind in ("prune_expert", "add_expert"):
        assert "several gates" in tried(kind, case(model, "layer.gates.first")).reason
    treatment = tried("refit_gate", case(model, "layer.gates.first"))
    old, new = model.state_dict(), treatment.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"layer.gates.first.linear.weight", "layer.gates.first.linear.bias"}
    assert isinstance(tried("average", case(model, "layer.gates.first")), Treatment)


class Bare(nn.Module):
    """A network that nothing tells how to begin anew."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_fresh_network_is_another_one_of_the_same_kind(is_known):
    unknown = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module = mb.gates.MLP(6, 2, hidden=[4]) if is_known else unknown
    state = torch.get_rng_state()
    first, second = fresh(module, 3), fresh(module, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert type(first) is type(module)
    assert are_equal(first, second)
    assert not are_equal(first, module)
    assert fresh(Bare(), 0) is None


def test_a_gates_network_gives_the_models_outputs():
    x = torch.zeros(3, 6)
    assert gate_network(mb.gates.MLP(6, 2, hidden=[4]), 7)(x).shape == (3, 7)
    assert gate_network(nn.Linear(6, 2), 5)(x).shape == (3, 5)
    assert gate_network(mb.gates.Uniform(2), 7) is None
    assert gate_network(Bare(), 7) is None


def test_bf16_and_an_unknown_gate(mixtures, case, short):
    treatment = tried("refit_gate", case(mixtures.inverted(), precision="bf16"))
    assert next(treatment.model.parameters()).dtype == torch.float32
    with pytest.raises(mb.ArgumentError, match="names no gate"):
        tried("average", case(mixtures.inverted(), "gat"))
