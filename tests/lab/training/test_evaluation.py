import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moebius.lab.data.batches import scale_pixels
from moebius.lab.model.build import build_model
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import ROWS_AT_ONCE, Evaluation, evaluate
from moebius.tasks import Classification

TREE = {
    "gate": {"kind": "domain"},
    "router": {"kind": "argmax"},
    "experts": [{"kind": "linear"}, {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear"}}],
}


def test_figures_are_literal():
    evaluation = Evaluation(
        labels=torch.tensor([0, 1, 1, 0]),
        domains=torch.tensor([0, 0, 1, 1]),
        predictions=torch.tensor([0, 1, 1, 1]),
        probabilities=torch.full((4,), 0.5),
        losses=torch.tensor([1.0, 2.0, 3.0, 6.0]),
        scores=torch.tensor([True, True, True, False]),
        gates={"gate": torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [torch.nan, torch.nan]])},
    )
    assert evaluation.accuracy == 0.75
    assert evaluation.loss == 3.0
    assert evaluation.score_by_domain(["a", "b", "empty"]) == {"a": 1.0, "b": 0.5}
    summary = evaluation.gate_summary()
    assert summary["rows"] == 3
    assert summary["entropy"] == 0.0
    assert summary["load"] == summary["importance"] == pytest.approx([2 / 3, 1 / 3])
    assert summary["marginal_entropy"] == pytest.approx(0.6365, abs=1e-4)


def test_equals_the_model_in_eval_on_all_rows_at_once(small_data):
    data = small_data(train_rows=300)
    assert len(data.train) > ROWS_AT_ONCE
    model = build_model({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, data.facts)
    model.experts = nn.ModuleList([nn.Sequential(nn.Dropout(0.5), model.experts[0]), model.experts[1]])
    (result,) = evaluate(ModelCall(model.train()), Classification(), data.train)
    assert model.training
    with torch.no_grad():
        output = model.eval()(scale_pixels(data.train.images))
    assert torch.equal(result.predictions, output.argmax(-1))
    torch.testing.assert_close(result.losses, F.cross_entropy(output, data.train.labels, reduction="none"))
    torch.testing.assert_close(result.probabilities, output.softmax(-1).amax(-1))
    assert torch.equal(result.labels, data.train.labels)


def test_a_nested_gate_has_weights_for_just_the_rows_sent_to_it(small_data):
    data = small_data()
    model = build_model(TREE, data.facts)
    (result,) = evaluate(ModelCall(model), Classification(), data.test)
    reached = ~result.gates["experts.1.gate"].isnan().any(1)
    assert set(result.gates) == {"gate", "experts.1.gate"}
    assert torch.equal(reached, data.test.domains == 1)
    assert torch.equal(result.gates["gate"].argmax(1), data.test.domains)
    assert result.gate_summary("experts.1.gate")["rows"] == int(reached.sum())


def test_a_gate_that_no_row_reached_says_so(small_data):
    data = small_data()
    split = data.test.take(torch.nonzero(data.test.domains == 0).squeeze(1))
    (result,) = evaluate(ModelCall(build_model(TREE, data.facts)), Classification(), split)
    assert "experts.1.gate" not in result.gates or result.gate_summary("experts.1.gate") == {"rows": 0}


def test_a_gate_that_whole_batches_pass_by_keeps_its_rows_in_place(small_data):
    data = small_data(train_rows=300)
    order = data.train.domains.sort(stable=True).indices  # the first batch is of one set alone
    split = data.train.take(order)
    assert not (split.domains[:ROWS_AT_ONCE] == 1).all()
    turned = split.take(torch.arange(len(split)).flip(0))
    for rows in (split, turned):
        (result,) = evaluate(ModelCall(build_model(TREE, data.facts)), Classification(), rows)
        assert torch.equal(~result.gates["experts.1.gate"].isnan().any(1), rows.domains == 1)
    (alone,) = evaluate(
        ModelCall(build_model(TREE, data.facts)),
        Classification(),
        split.take(torch.nonzero(split.domains == 0)[:, 0]),
    )
    assert alone.gates["experts.1.gate"].isnan().all()
    assert alone.gate_summary("experts.1.gate") == {"rows": 0}
