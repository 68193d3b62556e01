"""What a trial prints is what applying the remedy gives: gains against those on many rows that nothing has seen."""

import json
from collections import Counter

import pytest
import torch
from sklearn.datasets import load_digits

import moebius as mb
from moebius.kit.errors import UnknownKindError
from moebius.kit.registry import find, kinds
from moebius.lab.doctor import diagnose
from moebius.lab.doctor.gain import paired_gain
from moebius.lab.doctor.try_remedies import halves
from moebius.lab.remedies import _fitting
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import evaluate
from moebius.lab.training.fit_data import build_dataset
from moebius.tasks.classification import Classification

ROWS, TEST_ROWS = 500, 30_000
# Remedy → a mixture that it is for, and the number of regimes of its rows.
CASES = {
    "refit_gate": ("inverted", 2),
    "balance": ("collapsed", 2),
    "cut_to_top_k": ("healthy", 2),
    "prune_expert": ("redundant", 2),
    "add_expert": ("one_short", 3),
    "calibrate": ("overconfident", 2),
    "average": ("inverted", 2),
}


@pytest.fixture
def short(monkeypatch):
    """Fits of a moment: whether a printed gain is honest does not depend on how large it is."""
    monkeypatch.setattr(_fitting, "EPOCH_STEPS", 12)
    monkeypatch.setattr(_fitting, "EPOCHS", 3)


def figures(model, rows):
    """Losses and scores of a classifier on rows."""
    dataset = build_dataset(model, Classification(), rows, 0.0, 0)
    (evaluation,) = evaluate(ModelCall(model), Classification().for_model(model), dataset.train)
    return evaluation.losses.double(), evaluation.scores.double()


def true_gains(before, model, rows):
    """The gains of a changed model in loss and score."""
    losses, scores = figures(model, rows)
    return float((before[0] - losses).mean()), float((scores - before[1]).mean())


def test_every_remedy_has_a_mixture():
    assert set(CASES) == set(kinds("remedies"))


@pytest.mark.parametrize("seeds", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_printed_gains_are_those_of_rows_that_nothing_has_seen(seeds, mixtures, short, capsys):
    inside, count = Counter(), Counter()
    for remedy, (name, regimes) in CASES.items():
        model = getattr(mixtures, name)()
        test = mixtures.rows(TEST_ROWS, 10_000, regimes)
        before = figures(model, test)
        for seed in range(seeds):
            trials = diagnose(model, mixtures.rows(ROWS, seed, regimes)).try_remedies([remedy], seed)
            for trial in trials:
                assert trial.reason is None, trial
                for gain, true in zip((trial.loss, trial.score), true_gains(before, trial.model, test), strict=True):
                    if gain is None:
                        assert true == 0  # the answers are the same
                    else:
                        count[remedy] += 1
                        inside[remedy] += gain.low <= true <= gain.high
    with capsys.disabled():
        print("\ngains inside of their interval:", {name: f"{inside[name]} of {count[name]}" for name in CASES})
    assert inside.total() >= 0.9 * count.total()
    assert all(inside[name] >= 0.75 * count[name] for name in CASES)


def test_the_interval_of_a_figure_covers_it_as_often_as_it_says():
    random = torch.Generator().manual_seed(0)
    covered = {"score": 0, "loss": 0}
    for _ in range(2000):
        before = torch.rand(150, generator=random) < 0.8
        after = torch.where(torch.rand(150, generator=random) < 0.02, ~before, before)
        gain = paired_gain("score", before, after)
        covered["score"] += gain.low <= 0.02 * (0.2 - 0.8) <= gain.high
        losses = torch.rand(150, generator=random).log().neg()
        changed = losses * torch.rand(150, generator=random)
        gain = paired_gain("loss", losses, changed, less_is_better=True)
        covered["loss"] += gain.low <= 0.5 <= gain.high
    assert covered["score"] >= 0.94 * 2000
    assert 0.925 * 2000 <= covered["loss"] <= 0.97 * 2000


def test_what_is_fitted_is_not_measured(mixtures):
    diagnosis = diagnose(mixtures.healthy(), mixtures.rows(1000), rows=300)
    fitted, measured, unexamined = halves(diagnosis.subject, 0)
    keys = [{tuple(row) for row in part.images.tolist()} for part in (fitted, measured)]
    assert not keys[0] & keys[1]
    assert [len(key) for key in keys] == [500, 500]
    # Rows that were examined are fitted first.
    assert unexamined == 500


@pytest.mark.slow
def test_remedies_of_the_findings_are_tried_and_work(mixtures):
    model = mixtures.inverted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    diagnosis = diagnose(model, mixtures.rows(1200))
    lines = []
    trials = diagnosis.try_remedies(progress=lines.append)
    assert {trial.remedy for trial in trials} == {kind for finding in diagnosis for kind in finding.remedies}
    assert len(lines) == len(trials)
    refit = next(trial for trial in trials if trial.remedy == "refit_gate")
    assert refit.finding in diagnosis.findings
    assert refit.score.low > 0.2
    assert refit.loss.low > 0.2
    assert f"for {refit.codes}" in refit.text() == repr(refit)
    assert json.loads(json.dumps(refit.to_dict()))["score"]["low"] == refit.score.low
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_same_seed_tries_the_same(mixtures, short):
    diagnosis = diagnose(mixtures.collapsed(), mixtures.rows(400))
    state = torch.get_rng_state()
    first, second = (diagnosis.try_remedies(["refit_gate"], seed=3)[0] for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.text() == second.text()


def test_a_remedy_that_cannot_be_tried_says_why(mixtures):
    diagnosis = diagnose(mixtures.healthy(mb.routers.TopK(1)), mixtures.rows(400))
    (trial,) = diagnosis.try_remedies(["cut_to_top_k"])
    assert (trial.model, trial.reason) == (None, "one expert runs for each row already")
    assert "not tried: one expert runs" in trial.text()
    assert trial.to_dict()["score"] is None


def test_nothing_is_tried_where_nothing_is_found(mixtures):
    assert diagnose(mixtures.healthy(), mixtures.rows(600)).try_remedies() == []


def test_refuses(mixtures):
    diagnosis = diagnose(mixtures.healthy(), mixtures.rows(60))
    with pytest.raises(UnknownKindError, match="did you mean refit_gate") as caught:
        diagnosis.try_remedies(["refit_gat"])
    assert caught.value.fix
    with pytest.raises(mb.ArgumentError, match="80 rows at least"):
        diagnosis.try_remedies()


@pytest.mark.slow
def test_gains_on_real_digits():
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, held_out, test = order[:300], order[300:900], order[900:]
    torch.manual_seed(0)
    gate = mb.gates.Linear(64, 4)
    moe = mb.Mixture(gate, [mb.experts.Linear(64, 10) for _ in range(4)], combine=mb.LogMixture())
    mb.fit(moe, (x[train], y[train]), validation=0, epochs=60, lr=0.02, progress=False)
    with torch.no_grad():  # a gate that has come apart
        gate.linear.weight.copy_(gate.linear.weight.roll(1, 0))
        gate.linear.bias.copy_(gate.linear.bias.roll(1, 0))
    trials = diagnose(moe, (x[held_out], y[held_out])).try_remedies(["refit_gate", "calibrate", "average"])
    losses, scores = figures(moe, (x[test], y[test]))
    inside = []
    for trial in trials:
        after_losses, after_scores = figures(trial.model, (x[test], y[test]))
        pairs = [(trial.loss, losses - after_losses)]
        pairs += [] if trial.score is None else [(trial.score, after_scores - scores)]
        for gain, differences in pairs:
            # The test rows are few: their mean has an error of its own.
            spread = ((gain.high - gain.low) ** 2 / 4 + (1.96 * differences.std() / len(test) ** 0.5) ** 2) ** 0.5
            inside.append(abs(float(differences.mean()) - gain.value) <= spread)
    assert len(inside) == 5
    assert all(inside)
    assert all(find("remedies", trial.remedy).remedy.aim for trial in trials)
