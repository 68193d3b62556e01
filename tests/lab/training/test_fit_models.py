"""`mb.fit` of any module with mixtures inside."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.report.gate_names import gate_name
from moebius.lab.training.fit import fit
from moebius.lab.training.fit_settings import TRAINS
from moebius.lab.training.mixture_parts import gate_parameters, mixture_layers, parts


@pytest.fixture(scope="module")
def rows():
    """Real digits, 8×8 pixels as 64 numbers."""
    data = mb.lab.data.load_sets([mb.lab.data.sources.Digits()], size=8, train_rows=240, test_rows=50)
    return data.train.images.flatten(1).float() / 255, data.train.labels


def noisy(inputs, outputs):
    """Batch statistics that drift and dropout that blurs show whether a layer trains."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2))


def between():
    mixture = mb.Mixture(mb.gates.MLP(16, 3, hidden=[8]), [noisy(16, 12) for _ in range(3)])
    return nn.Sequential(noisy(64, 16), mixture, nn.Linear(12, 10))


class TokenNetwork(nn.Module):
    """Eight rows of pixels as tokens, through a sparse feed-forward block."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(8, 16)
        self.block = mb.layers.SparseFFN(16, 32, experts=4, k=2, shared=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        tokens = self.embedding(x.unflatten(1, (8, 8)))
        return self.head((tokens + self.block(tokens)).mean(1))


class WithHead(mb.Mixture):
    """A subclass with a layer of its own and a forward without context."""

    def __init__(self):
        super().__init__(mb.gates.Linear(64, 2), [nn.Linear(64, 12) for _ in range(2)])
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        return self.head(super().forward(x))


class SoftNetwork(nn.Module):
    """Soft MoE over tokens."""

    def __init__(self):
        super().__init__()
        self.block = mb.layers.SoftMoE(8, [nn.Linear(8, 8) for _ in range(3)], slots=2)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        tokens = x.unflatten(1, (8, 8))
        return self.head((tokens + self.block(tokens)).flatten(1))


def attentive():
    bodies, heads = [noisy(64, 6) for _ in range(3)], [nn.Linear(6, 10) for _ in range(3)]
    return mb.layers.AttentiveMixture(nn.Linear(64, 5), bodies, heads, gate_features=5, expert_features=6, dim=8)


MODELS = {"between": between, "tokens": TokenNetwork, "subclass": WithHead, "soft": SoftNetwork, "attentive": attentive}


def build(name):
    torch.manual_seed(0)
    return MODELS[name]()


def gate_names(model):
    gates = {id(parameter) for layer in mixture_layers(model) for parameter in gate_parameters(layer)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in gates}


@pytest.mark.parametrize("trains", TRAINS)
@pytest.mark.parametrize("name", MODELS)
def test_trains_what_it_is_asked_to_and_not_a_bit_more(name, trains, rows):
    model = build(name)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = fit(model, rows, trains=trains, epochs=2, batch_size=60, validation=0.0, optimizer="adamw", lr=0.01)
    gates = gate_names(model)
    assert gates
    assert result.model is model
    for key, value in model.state_dict().items():
        moved = not torch.equal(value, before[key])
        expected = {"gate": key in gates, "experts": key not in gates}.get(trains, True)
        assert moved == expected, key
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_learns_and_reports(name, rows):
    model = build(name)
    result = fit(model, rows, epochs=12, batch_size=30, lr=0.01, losses=[(mb.losses.batch_entropy, 0.01)])
    assert result.train.accuracy > 0.5
    assert set(result.final.gates) == {
        gate_name(path) for path, part in model.named_modules() if part in mixture_layers(model)
    }
    for weights in result.final.gates.values():
        torch.testing.assert_close(weights.sum(1), torch.ones(24))
    with torch.no_grad():
        output = model(rows[0])
    assert torch.isfinite(output).all()
    is_mixture = isinstance(model, mb.Mixture)
    assert (result.one_expert is None) == (not is_mixture)
    assert result.alone == ()
    assert result.oracle is None


def test_weights_of_tokens_are_their_mean_over_a_row(rows):
    model = build("tokens")
    result = fit(model, rows, epochs=1, validation=0.0)
    with mb.record(model) as log, torch.no_grad():
        model(rows[0])
    expected = log["block.mixture"][0].weights.unflatten(0, (240, 8)).mean(1)
    torch.testing.assert_close(result.final.gates["block.mixture.gate"], expected)


class Halves(nn.Module):
    """Sends single tokens of a row to a mixture inside a mixture."""

    def __init__(self):
        super().__init__()
        inner = mb.Mixture(mb.gates.Linear(8, 2), [nn.Linear(8, 10) for _ in range(2)], mb.routers.Argmax())
        self.outer = mb.Mixture(mb.gates.Linear(8, 2), [inner, nn.Linear(8, 10)], mb.routers.Argmax())

    def forward(self, x):
        return self.outer(x.unflatten(1, (8, 8))).mean(1)


def test_tokens_that_reach_a_mixture_inside_a_mixture_are_averaged_by_row(rows):
    torch.manual_seed(0)
    model = Halves()
    result = fit(model, rows, epochs=1, validation=0.0, trains="experts")
    with mb.record(model) as log, torch.no_grad(), mb.context(domain=torch.zeros(240, dtype=torch.long)):
        model(rows[0])
    to_inner = log["outer"][0].weights[:, 0].unflatten(0, (240, 8)) > 0
    weights = result.final.gates["outer.experts.0.gate"]
    assert torch.equal(weights.isnan().any(1), ~to_inner.any(1))
    torch.testing.assert_close(weights[to_inner.any(1)].sum(1), torch.ones(int(to_inner.any(1).sum())))


def test_a_mixture_around_which_nothing_stands_trains_as_the_mixture_itself(rows):
    def mixture():
        torch.manual_seed(0)
        return mb.Mixture(mb.gates.Linear(64, 2), [nn.Linear(64, 10) for _ in range(2)])

    alone, inside = mixture(), nn.Sequential(mixture())
    expected = fit(alone, rows, epochs=3, lr=0.01)
    result = fit(inside, rows, epochs=3, lr=0.01)
    assert torch.equal(result.final.losses, expected.final.losses)
    for value, other in zip(inside.parameters(), alone.parameters(), strict=True):
        assert torch.equal(value, other)
    assert (expected.oracle is None, result.oracle is None) == (False, True)


def test_log_probabilities_of_a_mixture_inside_are_logits(rows):
    """Σ exp = 1, so that their log-softmax is themselves."""

    def mixture():
        torch.manual_seed(0)
        return mb.Mixture(mb.gates.Linear(64, 2), [nn.Linear(64, 10) for _ in range(2)], combine=mb.LogMixture())

    expected, result = fit(mixture(), rows, epochs=3), fit(nn.Sequential(mixture()), rows, epochs=3)
    torch.testing.assert_close(result.final.losses, expected.final.losses)
    torch.testing.assert_close(result.final.probabilities, expected.final.probabilities)


def test_mixtures_inside_find_the_domain(small_data):
    data = small_data(train_rows=120, test_rows=40)
    experts = [nn.Sequential(nn.Flatten(), nn.Linear(64, 20)) for _ in range(2)]
    model = nn.Sequential(nn.Identity(), mb.Mixture(mb.gates.Domain(2, 2), experts, mb.routers.Argmax()))
    result = fit(model, data, epochs=1)
    assert torch.equal(result.final.gates["1.gate"].argmax(1), result.final.domains)


def test_parameters_frozen_by_hand_stay_as_they_are(rows):
    model = build("between")
    body = model[0][0].requires_grad_(False)
    before = body.weight.clone()
    fit(model, rows, epochs=1, lr=0.1, optimizer="adamw")
    assert torch.equal(body.weight, before)
    assert not body.weight.requires_grad
    assert model[2].weight.requires_grad
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert "0.0.weight" in [names[id(parameter)] for parameter in parts(model)["experts"]]


def test_a_model_without_a_mixture_is_refused_with_a_fix(rows):
    with pytest.raises(ArgumentError, match="model: must be a mixture, or have one inside, got 'Sequential'") as error:
        fit(nn.Sequential(nn.Linear(64, 10)), rows)
    assert error.value.fix == "mb.Mixture(mb.gates.Linear(features, 1), [model])"


def test_outputs_that_are_no_class_scores_are_refused(rows):
    tokens = nn.Sequential(nn.Unflatten(1, (8, 8)), mb.layers.SparseFFN(8, 8, experts=2, k=1))
    with pytest.raises(ArgumentError, match=r"model: must give one tensor of class scores, .* got \(1, 8, 8\)"):
        fit(tokens, rows)


def test_a_loss_that_compares_hidden_experts_is_refused(rows):
    with pytest.raises(ArgumentError, match="needs outputs of shape") as error:
        fit(build("between"), rows, epochs=1, losses=[mb.losses.best_expert])
    assert "experts that do the whole task" in (error.value.fix or "")


def test_a_gate_alone_that_has_no_parameters_is_refused(rows):
    model = nn.Sequential(mb.Mixture(mb.gates.Uniform(2), [nn.Linear(64, 10) for _ in range(2)]))
    with pytest.raises(ArgumentError, match="names parts that have no parameters") as error:
        fit(model, rows, trains="gate")
    assert error.value.fix == 'trains="both"'
