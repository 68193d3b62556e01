import re

import pytest
import sklearn.metrics
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.tasks import Classification, MultiLabel, MultiTask, Regression, Tokens
from moebius.tasks._choice import as_task
from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("tasks"))
def test_every_task(name, check):
    check()


def mixture(combine=None):
    return mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], combine=combine)


@pytest.mark.parametrize(
    ("model", "outputs", "to_logits"),
    [
        (mixture(), "logits", lambda x: x),
        (nn.Sequential(mixture(mb.LogMixture())), "logits", lambda x: x),
        (mixture(mb.LogMixture()), "log-probabilities", lambda x: x.log_softmax(-1)),
        (Adapter(nn.Linear(4, 3), activation="softmax"), "probabilities", lambda x: x.softmax(-1)),
        (Adapter(nn.Linear(4, 3)), "logits", lambda x: x),
    ],
)
def test_the_model_says_what_its_outputs_are_and_every_scale_gives_the_same_figures(model, outputs, to_logits):
    task = Classification().for_model(model)
    assert task.outputs == outputs
    logits, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        task.row_losses(to_logits(logits), labels), F.cross_entropy(logits, labels, reduction="none")
    )
    torch.testing.assert_close(task.probabilities(to_logits(logits)), logits.softmax(-1))
    columns = task.predict(to_logits(logits))
    assert torch.equal(columns["predictions"], logits.argmax(-1))
    torch.testing.assert_close(columns["probabilities"], logits.softmax(-1).max(-1).values)


def test_a_task_of_a_model_is_another_object():
    task = Classification()
    assert task.for_model(mixture(mb.LogMixture())).for_model(mixture()).outputs == task.outputs == "logits"


@pytest.mark.parametrize("name", ["row_losses", "row_scores"])
def test_the_contract_names_what_a_task_lacks(name):
    with pytest.raises(TypeError, match=f"Task is a task without a method {name}"):
        getattr(mb.Task(), name)(torch.zeros(1, 2), torch.zeros(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_weights_and_smoothing_are_torchs_and_the_same_for_every_scale_of_outputs(smoothing, weights):
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    options = {"weight": None if weights is None else torch.tensor(weights), "label_smoothing": smoothing}
    expected = F.cross_entropy(logits, labels, reduction="none", **options)
    task = Classification(weights, smoothing)
    torch.testing.assert_close(task.row_losses(logits, labels), expected)
    logs = task.for_model(mixture(mb.LogMixture()))
    torch.testing.assert_close(logs.row_losses(logits.log_softmax(-1), labels), expected)
    torch.testing.assert_close(logs.expert_losses(logits.unsqueeze(1), labels).squeeze(1), expected)


def test_balanced_weights_have_a_mean_of_one_over_the_training_rows():
    labels = torch.tensor([0, 0, 0, 2])
    task = Classification("balanced").for_data(labels)
    plain = F.cross_entropy(torch.zeros(4, 4), labels, reduction="none")
    losses = task.row_losses(torch.zeros(4, 4), labels)  # class 1 and class 3 have no row
    torch.testing.assert_close(losses, plain * torch.tensor([4 / 9, 4 / 9, 4 / 9, 4 / 3]))


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
def test_regression_losses_and_scores_are_those_of_scikit_learn(loss):
    target, output = torch.randn(50), torch.randn(50, 1)
    task = Regression(loss, quantile=0.8, delta=0.7).for_data(target)
    y, p = target.numpy(), output.squeeze(1).numpy()
    losses = {
        "mse": sklearn.metrics.mean_squared_error(y, p),
        "mae": sklearn.metrics.mean_absolute_error(y, p),
        "huber": F.huber_loss(output.squeeze(1), target, delta=0.7).item(),
        "quantile": sklearn.metrics.mean_pinball_loss(y, p, alpha=0.8),
    }
    scores = {
        "mse": sklearn.metrics.r2_score(y, p),
        "mae": sklearn.metrics.d2_absolute_error_score(y, p),
        "huber": sklearn.metrics.r2_score(y, p),
        "quantile": sklearn.metrics.d2_pinball_score(y, p, alpha=0.8),
    }
    assert task.row_losses(output, target).mean().item() == pytest.approx(losses[loss], rel=1e-5)
    assert task.row_scores(output, target).mean().item() == pytest.approx(scores[loss], rel=1e-4)
    metrics = {name: values.mean().item() for name, values in task.row_metrics(output, target).items()}
    expected = {"squared_error": losses["mse"], "absolute_error": losses["mae"]}
    assert metrics == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


def test_unknown_labels_count_nowhere():
    logits, target = torch.randn(2, 3), torch.tensor([[1.0, 0.0, torch.nan], [torch.nan] * 3])
    task = MultiLabel(positive_weight=2.0)
    expected = F.binary_cross_entropy_with_logits(logits[0, :2], target[0, :2], pos_weight=torch.tensor(2.0))
    torch.testing.assert_close(task.row_losses(logits, target), torch.stack([expected, torch.tensor(0.0)]))
    assert task.has_target(target).tolist() == [True, False]
    leaf = logits.requires_grad_()
    assert torch.autograd.grad(task.row_losses(leaf, target).sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("channels", ["last", "first"])
def test_positions_without_a_label_count_nowhere(channels):
    logits, target = torch.randn(2, 4, 5, 3), torch.randint(0, 3, (2, 4, 5))
    target[0, :2] = 255
    task = Tokens(ignore_index=255, channels=channels)
    output = logits if channels == "last" else logits.movedim(-1, 1)
    task.check(output, target)
    expected = [F.cross_entropy(logits[0, 2:].flatten(0, 1), target[0, 2:].flatten())]
    expected.append(F.cross_entropy(logits[1].flatten(0, 1), target[1].flatten()))
    torch.testing.assert_close(task.row_losses(output, target), torch.stack(expected))
    other = Tokens(ignore_index=255, channels="first" if channels == "last" else "last")
    with pytest.raises(mb.kit.errors.ArgumentError, match=f"Tokens\\(channels='{channels}'\\)"):
        other.check(output, target)


def test_an_absent_target_of_one_task_leaves_the_others():
    task = MultiTask({"kind": Classification(), "price": Regression()}, {"price": 0.5})
    output = {"kind": torch.randn(3, 4), "price": torch.randn(3, 1)}
    target = {"kind": torch.tensor([1, -100, 2]), "price": torch.tensor([0.5, 1.0, torch.nan])}
    kind = F.cross_entropy(output["kind"], target["kind"], reduction="none", ignore_index=-100)
    price = (output["price"].squeeze(1) - target["price"]).square()
    expected = torch.stack([kind[0] + 0.5 * price[0], 0.5 * price[1], kind[2]])
    torch.testing.assert_close(task.row_losses(output, target), expected)
    metrics = task.row_metrics(output, target)
    assert metrics["kind_accuracy"].isnan().tolist() == [False, True, False]
    assert metrics["price_mse"].isnan().tolist() == [False, False, True]
    leaves = [value.requires_grad_() for value in output.values()]
    gradients = torch.autograd.grad(task.row_losses(output, target).sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    with pytest.raises(mb.kit.errors.ArgumentError, match="needs targets by name for kind, price"):
        task.check(output, target["kind"])


@pytest.mark.parametrize(
    ("task", "output", "target", "message"),
    [
        ("classification", torch.zeros(1, 3), torch.tensor([0.5]), 'task="regression"'),
        ("classification", torch.zeros(1, 3), torch.tensor([1.0]), r"labels\.long\(\)\)    # no label has a fraction"),
        ("classification", torch.zeros(1, 3), torch.tensor([3]), "needs labels 0 … 2"),
        ("classification", torch.zeros(1, 3), torch.tensor([-1]), "needs labels 0 … 2.*got -1"),
        ("classification", torch.zeros(1, 3, 2), torch.tensor([1]), "one tensor of class scores"),
        ("regression", torch.zeros(1, 1), torch.tensor([torch.nan]), "keep = targets.isfinite"),
        ("regression", torch.zeros(1, 3), torch.tensor([1.0]), "must give one number for each row"),
        ("multi_label", torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 1.0]]), "of 0 and 1"),
        ("tokens", torch.zeros(1, 5, 4), torch.full((1, 5), 4), "needs labels 0 … 3, or -100 for none"),
        (F.l1_loss, torch.zeros(1), torch.zeros(1), None),
    ],
)
def test_wrong_targets_are_named_with_a_fix_that_destroys_nothing(task, output, target, message):
    if message is None:
        with pytest.raises(mb.kit.errors.ArgumentError, match="gives one number for all"):
            as_task(task).row_losses(output, target)
        return
    with pytest.raises(mb.kit.errors.ArgumentError) as caught:
        as_task(task).check(output, target)
    assert re.search(message, str(caught.value), re.DOTALL)


def test_what_a_user_may_write_for_a_task():
    assert as_task({"kind": "regression", "loss": "mae"}).loss == "mae"
    assert isinstance(as_task(Tokens), Tokens)
    nested = as_task({"kind": "multi_task", "tasks": {"a": "multi_label", "b": {"kind": "tokens"}}})
    assert isinstance(nested.tasks["b"], Tokens)
    assert as_task(lambda output, target: output).row_scores(torch.ones(2), None).tolist() == [-1.0, -1.0]
    with pytest.raises(mb.kit.errors.ArgumentError, match="keywords of regression: loss, delta, quantile"):
        as_task({"kind": "regression", "los": "mae"})
    with pytest.raises(mb.kit.errors.UnknownKindError, match="regression"):
        as_task("regresion")
    with pytest.raises(mb.kit.errors.ArgumentError, match="needs one of classification"):
        as_task(3)
