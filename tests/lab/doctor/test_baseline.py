"""The gate's own network beside the mixture, and the diagnosis of what `mb.fit` has trained."""

import pytest
import torch

import moebius as mb
from moebius.lab.doctor import diagnose


def test_a_network_that_learns_the_task_by_itself_is_better_than_experts_that_know_nothing(mixtures):
    torch.manual_seed(0)
    x, y = mixtures.rows(1600)
    gate = mb.gates.MLP(6, 2, hidden=[32])
    moe = mb.Mixture(gate, [mb.experts.Linear(6, 2), mb.experts.Linear(6, 2)], combine=mb.LogMixture()).eval()
    state = {name: tensor.clone() for name, tensor in moe.state_dict().items()}
    diagnosis = diagnose(moe, (x, y), baseline=True)
    (examination,) = diagnosis.examinations
    assert len(examination.rows) == len(examination.network.losses) == 800
    assert examination.network.scores.double().mean() > 0.8
    finding = next(each for each in diagnosis if each.kind == "gate worse than its network")
    assert finding.remedies == ("add_expert",)
    assert all(torch.equal(state[name], tensor) for name, tensor in moe.state_dict().items())
    # With rows of its own for the network all rows are examined.
    (examination,) = diagnose(moe, (x[:500], y[:500]), baseline=True, train=(x[500:], y[500:])).examinations
    assert len(examination.rows) == 500


@pytest.mark.thorough
def test_a_mixture_that_pays_is_not_accused(mixtures):
    diagnosis = diagnose(mixtures.healthy(), mixtures.rows(1600), baseline=True)
    assert diagnosis.examinations[0].network is not None
    assert "gate worse than its network" not in diagnosis.kinds


@pytest.mark.parametrize("where", ["inside", "uniform"])
def test_no_network_where_there_is_none(where, mixtures):
    model = mixtures.Network(mixtures.healthy())
    if where == "uniform":
        model = mixtures.mixture(mb.gates.Uniform(2), [mixtures.expert(1), mixtures.expert(2)])
    assert diagnose(model, mixtures.rows(200), baseline=True).examinations[0].network is None


def test_a_fitted_model_is_diagnosed_on_rows_that_it_has_not_seen(mixtures):
    x, y = mixtures.rows(600)
    moe = mixtures.healthy()
    fitted = mb.fit(moe, (x[:400], y[:400]), validation=0.25, epochs=1, progress=False)
    diagnosis = fitted.diagnose()
    assert torch.equal(diagnosis.subject.split.images, fitted.origin.data.validation.images)
    assert fitted.diagnose(rows=50).examinations[0].rows.weights.shape == (50, 2)
    tested = mb.fit(moe, (x[:400], y[:400]), validation=0, test=(x[400:], y[400:]), epochs=1, progress=False)
    assert torch.equal(tested.diagnose().subject.split.images, x[400:])
    bare = mb.fit(moe, (x[:400], y[:400]), validation=0, epochs=1, progress=False)
    with pytest.raises(mb.ArgumentError, match="was not trained on"):
        bare.diagnose()
