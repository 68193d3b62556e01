"""Any figure of the held-out rows may decide: of the task, and of the user."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.measure import resolve_watch
from moebius.lab.training.settings import Watch


class Metric:
    """A metric as torchmetrics has them, of which `higher_is_better` says what is better."""

    def __init__(self, higher):
        self.higher_is_better = higher

    def __call__(self, output, target):
        return output.exp()[:, 1].mean()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("squared_error", "min"),
        ("price_mse", "min"),
        ("kind_cross_entropy", "min"),
        ("valRMSE", "min"),
        ("loss", "min"),
        ("exact_match", "max"),
        ("kind_accuracy", "max"),
        ("macro-F1", "max"),
    ],
)
def test_the_name_of_a_known_figure_tells_its_mode(name, mode):
    watch = resolve_watch(Watch(measure=name), "r2", ["r2", "loss", name], {})
    assert (watch.measure, watch.mode) == (name, mode)
    turned = {"min": "max", "max": "min"}[mode]
    assert resolve_watch(Watch(measure=name, mode=turned), "r2", ["r2", name], {}).mode == turned


def test_score_stands_for_that_of_the_task_of_which_more_is_better():
    watch = resolve_watch(Watch(patience=3), "minus_error", ["minus_error", "loss"], {})
    assert watch == Watch(measure="minus_error", mode="max", patience=3)


@pytest.mark.parametrize(("higher", "mode"), [(True, "max"), (False, "min")])
def test_a_metric_may_say_what_is_better(higher, mode):
    metrics = {"share": Metric(higher)}
    assert resolve_watch(Watch(measure="share"), "accuracy", ["accuracy", "loss", "share"], metrics).mode == mode


@pytest.mark.parametrize("name", ["share", "error_of_recall"])
def test_what_nothing_tells_has_to_be_said(name):
    with pytest.raises(ArgumentError, match=f"watch.mode: needs max or min, .* more {name} is better") as error:
        resolve_watch(Watch(measure=name), "accuracy", [name], {name: Metric(None)})
    assert error.value.fix == f'watch={{"measure": "{name}", "mode": "max"}}    # or "min"'


def rows():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=random)
    return x, (x[:, 0] > 0).long()


def mixture(width=2, combine=None):
    torch.manual_seed(0)
    return mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, width) for _ in range(2)], combine=combine)


def best_epoch(values, sign):
    return 1 + max(range(len(values)), key=lambda place: (sign * values[place], -place))


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_a_metric_of_the_user_ends_the_training_and_chooses_the_epoch(mode, sign):
    random = torch.Generator().manual_seed(1)
    noise = {"noise": lambda output, target: torch.rand((), generator=random)}
    watch = {"measure": "noise", "mode": mode}
    fitted = mb.fit(mixture(), rows(), epochs=30, metrics=noise, watch=watch, patience=3)
    values = [entry["validation"]["metrics"]["noise"] for entry in fitted.metrics]
    assert fitted.epoch == best_epoch(values, sign)
    assert len(values) == fitted.epoch + 3 < 30


@pytest.mark.parametrize(
    ("task", "targets", "width", "measure", "sign"),
    [
        ("regression", lambda x: x @ torch.tensor([[1.0], [2], [3], [4]]), 1, "absolute_error", -1),
        ("multi_label", lambda x: (x > 0.5).float(), 4, "exact_match", 1),
    ],
)
def test_a_metric_of_the_task_chooses_the_epoch(task, targets, width, measure, sign):
    x, _ = rows()
    # The last epochs spoil it.
    rates = {"epochs": 8, "batch_size": 20, "lr": lambda epoch: 3.0 if epoch >= 6 else 0.05}
    fitted = mb.fit(mixture(width), (x, targets(x)), task=task, watch={"measure": measure}, **rates)
    values = [entry["validation"]["metrics"][measure] for entry in fitted.metrics]
    assert fitted.epoch == best_epoch(values, sign)
    assert values[-1] != values[fitted.epoch - 1]


def test_an_unknown_name_is_refused_before_anything_is_trained():
    model = mixture(1)
    before = [parameter.clone() for parameter in model.parameters()]
    x, _ = rows()
    with pytest.raises(ArgumentError, match=r"watch\.measure: needs a figure of .* rows, one of r2, loss") as no:
        mb.fit(model, (x, x[:, 0]), task="regression", watch={"measure": "accuracy"}, epochs=3)
    assert "squared_error, absolute_error" in no.value.message
    assert no.value.fix.startswith('watch={"measure": "r2"}')
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_same_in_the_settings_of_a_recipe(small_data, settings, build, tmp_path, alone):
    data = small_data(validation_rows=40)
    with pytest.raises(ArgumentError, match="one of accuracy, loss, got 'f1'"):
        alone(build(data), data, settings(watch={"measure": "f1"}), 0, tmp_path)
    trained = alone(build(data), data, settings(watch={"measure": "loss", "mode": "max"}), 0, tmp_path).train()
    losses = [entry["validation"]["loss"] for entry in trained.metrics]
    assert trained.epoch == best_epoch(losses, 1)


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_a_metric_with_the_name_of_another_figure_is_refused(name):
    with pytest.raises(ArgumentError, match=f"metrics.{name}: has the name of a figure") as error:
        mb.fit(mixture(), rows(), metrics={name: Metric(True)}, epochs=1)
    assert error.value.fix == f'metrics={{"my_{name}": metric}}'
