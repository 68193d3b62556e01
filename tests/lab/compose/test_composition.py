"""What is done with a composition: thresholds, further networks, saving."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.compose.thresholds import accuracy_threshold, share_threshold


@pytest.fixture
def composition(noisy):
    networks, rows = noisy(3000)
    return mb.compose(networks, rows, ways=["uniform", "stack"], progress=False)


def test_at_most_a_share_of_the_rows_goes_on(composition, noisy):
    threshold = composition.at_most(0.3, "n1")
    x, y = noisy(3000, 1)[1]
    check = threshold.holds((x, y))
    assert check
    assert check.figures["share_below"] == pytest.approx(0.3, abs=0.03)
    seen = []
    threshold.model.second.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    output = threshold.model(x)
    assert sum(seen) / len(x) == check.figures["share_below"]
    first = composition.pool.experts[composition.pool.best([0, 2])]
    stays = first(x).softmax(-1).amax(-1) >= threshold.threshold
    assert torch.equal(output[stays].argmax(1), first(x)[stays].argmax(1))
    assert 0.2 < stays.float().mean() < 0.8


def test_answers_have_their_accuracy(composition, noisy):
    threshold = composition.abstain(0.9)
    x, y = noisy(4000, 1)[1]
    output = threshold.model(x).argmax(1)
    answered = output < 2
    assert (output[answered] == y[answered]).float().mean() > 0.89
    assert 0.2 < answered.float().mean() < 1
    check = threshold.holds((x, y))
    assert check
    assert check.figures["share_below"] == pytest.approx(1 - float(answered.float().mean()))


def test_a_shift_is_noticed_with_and_without_targets(composition, noisy):
    x, y = noisy(1000, 1)[1]
    for threshold in (composition.at_most(0.3, "n1"), composition.abstain(0.9)):
        assert not threshold.holds((0.2 * x, y))
        assert not threshold.holds(0.2 * x, labelled=False)
        assert "does not hold" in str(threshold.holds(0.2 * x, labelled=False))
    # Right confidences, wrong targets: only labelled rows show it.
    check = composition.abstain(0.9).holds((x, 1 - y))
    assert "accuracy" in str(check)
    assert not check


def test_the_bounds_of_thresholds():
    values = np.linspace(0, 1, 1000)
    assert (values < share_threshold(values, 0.3)).mean() == pytest.approx(0.3)
    assert accuracy_threshold(values, np.zeros(1000), 0.9, 0.9) is None
    assert accuracy_threshold(values, np.ones(1000), 0.9, 0.9) == 0
    generator, missed = np.random.default_rng(0), 0
    for _ in range(200):
        confidence = generator.uniform(size=500)
        right = (generator.uniform(size=500) < 0.5 + confidence / 2).astype(float)
        threshold = accuracy_threshold(confidence, right, 0.9, 0.9)
        # The accuracy above t is ½ + (1 + t)/4, so .9 needs t ≥ .6.
        missed += threshold is not None and threshold < 0.6
    assert missed <= 0.1 * 200


def test_thresholds_that_cannot_be_are_refused(composition):
    with pytest.raises(ArgumentError, match=r"^accuracy: is not shown"):
        composition.abstain(0.9999)
    with pytest.raises(ArgumentError, match=r"^share: "):
        composition.at_most(1.3, "n1")
    with pytest.raises(ArgumentError, match="needs one of n0, n1, n2"):
        composition.at_most(0.3, "n9")


@pytest.mark.parametrize("way", ["uniform", "stack"])
def test_a_further_network_leaves_other_rows_as_they_are(regimes, short, way):
    (networks, rows), (test_x, _) = regimes(800), regimes(500, 3)[1]
    composition = mb.compose({"first": networks["first"]}, rows, ways=[way], progress=False)
    before = composition.model(test_x).clone()
    extended = composition.add(networks["second"], "second")
    with mb.record(extended.model) as log:
        after = extended.model(test_x)
    is_new = log[""][-1].weights[:, 1] > 0
    assert 0.2 < is_new.float().mean() < 0.8
    assert torch.equal(after[~is_new], before[~is_new])
    assert not torch.equal(after[is_new], before[is_new])
    assert extended.table.loc["extended", "score"] > composition.result().score + 0.1
    assert extended.drop("second") is composition
    assert torch.equal(extended.drop("second").model(test_x), before)
    with pytest.raises(ArgumentError, match="was not added"):
        extended.drop("first")
    with pytest.raises(ArgumentError, match="is that of a network"):
        extended.add(networks["second"], "second")


def test_models_are_saved_and_come_back(digits, short, tmp_path):
    networks, rows, (x, _) = digits
    ways = ["calibrated", "weighted", "stack", "hard-gate", "output-gate", "knora-u", "knora-e"]
    composition = mb.compose(networks, rows, ways=ways, progress=False)
    for way, model in composition.models.items():
        composition.save(tmp_path / way, way)
        assert json.loads((tmp_path / way / "composition.json").read_text())["recommended"] == composition.recommended
        torch.testing.assert_close(mb.load(tmp_path / way)(x), model(x), rtol=1e-4, atol=1e-4)
    threshold = composition.abstain(0.8)
    threshold.save(tmp_path / "threshold")
    torch.testing.assert_close(mb.load(tmp_path / "threshold")(x), threshold.model(x), rtol=1e-4, atol=1e-4)
    assert (
        "accuracy of at least 0.8"
        in json.loads((tmp_path / "threshold" / "model.json").read_text())["data"]["threshold"]["text"]
    )
    assert "<table>" in composition._repr_html_()


def test_a_model_is_explained_and_diagnosed(regimes, short):
    networks, rows = regimes()
    composition = mb.compose(networks, rows, ways=["soft-gate"], progress=False)
    diagnosis = mb.diagnose(composition.models["soft-gate"], regimes(300, 2)[1])
    assert diagnosis.examinations
    assert isinstance(composition.model, nn.Module)
