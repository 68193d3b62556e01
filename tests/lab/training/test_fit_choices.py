"""`mb.fit` with losses, optimizers and learning rates of the user's own: equal choices give equal bits."""

import functools

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.fit import fit


def digits(rows=200):
    """Real digits, 8×8 pixels as 64 numbers."""
    data = mb.lab.data.load_sets([mb.lab.data.sources.Digits()], size=8, train_rows=rows, test_rows=50)
    return data.train.images.flatten(1).float() / 255, data.train.labels


@pytest.fixture(scope="module")
def rows():
    return digits()


def mixture():
    torch.manual_seed(0)
    return mb.Mixture(mb.gates.Linear(64, 3), [nn.Linear(64, 10) for _ in range(3)], combine=mb.LogMixture())


def fitted(rows, model=None, **options):
    """The weights after a short training, and the outcome."""
    model = model or mixture()
    result = fit(model, rows, **{"epochs": 2, "batch_size": 50, **options})
    return {name: value.clone() for name, value in model.state_dict().items()}, result


def assert_same_bits(weights, expected):
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def compared(routing, expert_losses):
    return (routing.probs * expert_losses).sum(1).mean()


@pytest.mark.parametrize("weight", [0.3, {"kind": "linear", "start": 0.0, "end": 0.5, "epochs": 2}])
def test_a_loss_as_mapping_and_as_function_give_the_same_bits(weight, rows):
    expected, result = fitted(rows, losses=[{"kind": "batch_entropy", "weight": weight}, {"kind": "z_loss"}])
    schedule = weight if isinstance(weight, float) else mb.schedules.Linear(0.0, 0.5, 2)
    for losses in (
        [(mb.losses.batch_entropy, schedule), mb.losses.z_loss],
        [{"kind": mb.losses.batch_entropy, "weight": schedule}, (mb.losses.z_loss, 1)],
    ):
        weights, other = fitted(rows, losses=losses)
        assert_same_bits(weights, expected)
        assert other.metrics == result.metrics
    assert list(result.metrics[0]["train"]["terms"]) == ["cross_entropy", "batch_entropy", "z_loss"]
    assert not torch.equal(expected["gate.linear.weight"], fitted(rows)[0]["gate.linear.weight"])


def test_a_loss_that_compares_experts_trains(rows):
    built_in, result = fitted(rows, losses=[{"kind": "expectation", "weight": 0.5}])
    weights, other = fitted(rows, losses=[(compared, 0.5)])
    term = result.metrics[0]["train"]["terms"]["expectation"]
    assert other.metrics[0]["train"]["terms"]["compared"] == pytest.approx(term, rel=1e-5)
    for name, value in built_in.items():
        torch.testing.assert_close(weights[name], value)


CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("lr", [None, 0.02])
@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_by_name_class_and_factory_gives_the_same_bits(name, lr, rows):
    expected, _ = fitted(rows, optimizer=name, lr=lr)
    for optimizer in (CLASSES[name], functools.partial(CLASSES[name])):
        assert_same_bits(fitted(rows, optimizer=optimizer, lr=lr)[0], expected)
    model = mixture()
    taken = CLASSES[name](model.parameters(), lr=lr or 1e-3, fused=True)
    assert_same_bits(fitted(rows, model, optimizer=taken)[0], expected)


def test_a_factory_keeps_its_options_and_its_rate(rows):
    bound = functools.partial(torch.optim.AdamW, weight_decay=0.5, lr=0.02)
    expected, _ = fitted(rows, optimizer=bound)
    assert_same_bits(
        fitted(rows, optimizer=functools.partial(torch.optim.AdamW, weight_decay=0.5), lr=0.02)[0], expected
    )
    assert not torch.equal(
        fitted(rows, optimizer="adamw", lr=0.02)[0]["gate.linear.weight"], expected["gate.linear.weight"]
    )
    # `lr` of the call is above that of the factory.
    slow = functools.partial(torch.optim.AdamW, weight_decay=0.5, lr=1.0)
    assert_same_bits(fitted(rows, optimizer=slow, lr=0.02)[0], expected)


def test_any_function_of_groups_may_make_the_optimizer(rows):
    seen = []

    def make(groups):
        seen.append([(group["name"], len(group["params"]), group["lr"]) for group in groups])
        return torch.optim.RMSprop(groups)

    before = mixture().state_dict()
    weights, _ = fitted(rows, optimizer=make, lr=0.01)
    assert seen == [[("gate", 2, 0.01), ("experts", 6, 0.01)]]
    assert not any(torch.equal(weights[name], value) for name, value in before.items())


def test_an_optimizer_object_keeps_its_groups_and_rates(rows):
    model = mixture()
    groups = [{"params": model.gate.parameters(), "lr": 0.0}, {"params": model.experts.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights, _ = fitted(rows, model, optimizer=optimizer)
    for name, value in before.items():
        assert torch.equal(weights[name], value) == name.startswith("gate"), name
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]
    moved, _ = fitted(rows, model, optimizer=optimizer, lr=0.05)
    assert not any(torch.equal(moved[name], value) for name, value in weights.items())
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]


def test_plateaus_lower_the_rates_of_an_optimizer_object_for_the_time_of_training(rows):
    model = mixture()
    optimizer = torch.optim.SGD(
        [{"params": model.gate.parameters(), "lr": 30.0}, {"params": model.experts.parameters()}], lr=20.0
    )
    rates = []

    def look(moment):
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert [*moment.learning_rates.values()] == rates[-1]

    fit(model, rows, optimizer=optimizer, plateau=1, epochs=8, batch_size=50, on_epoch=look)
    assert rates[0] == [30.0, 20.0]
    assert rates[-1][0] < 30.0
    assert all(rate[0] == 1.5 * rate[1] for rate in rates)
    assert [group["lr"] for group in optimizer.param_groups] == [30.0, 20.0]


@pytest.mark.parametrize("trains", ["gate", "experts"])
def test_freezing_holds_for_an_optimizer_over_everything(trains, rows):
    model = mixture()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over from a loop of the user's
    weights, _ = fitted(rows, model, optimizer=optimizer, trains=trains)
    for name, value in before.items():
        assert torch.equal(weights[name], value) != name.startswith(trains), name


def test_an_optimizer_over_the_trained_part_alone_is_enough(rows):
    model = mixture()
    fitted(rows, model, optimizer=torch.optim.Adam(model.gate.parameters()), trains="gate")
    with pytest.raises(ArgumentError, match="lacks 6") as error:
        fitted(rows, model, optimizer=torch.optim.Adam(model.gate.parameters()), trains="both")
    assert "experts.0.weight" in error.value.message
    assert error.value.fix == "optimizer=torch.optim.AdamW(model.parameters())"


def test_optimizers_that_cannot_be_used_are_refused_with_a_fix(rows):
    other = torch.optim.Adam([*mixture().parameters()])
    model = mixture()
    foreign = torch.optim.Adam([*model.parameters(), nn.Parameter(torch.zeros(1))])
    for optimizer, message in (
        (other, "lacks 8"),
        (foreign, "holds others"),
        (torch.optim.LBFGS, "torch refuses it"),
        (functools.partial(torch.optim.Adam, beta=1), "torch refuses it"),
        (torch.optim.LBFGS(model.parameters()), "without a closure"),
    ):
        with pytest.raises(ArgumentError, match=message) as error:
            fitted(rows, model, optimizer=optimizer)
        assert (error.value.fix or "").startswith("optimizer=")


def test_rates_as_number_mapping_schedule_and_function_give_the_same_bits(rows):
    mapping = {"kind": "cosine", "start": 0.02, "end": 0.0, "epochs": 2}
    expected, _ = fitted(rows, lr=mapping)
    cosine = mb.schedules.Cosine(0.02, 0.0, 2)
    for lr in (cosine, lambda epoch: cosine(epoch)):
        assert_same_bits(fitted(rows, lr=lr)[0], expected)
    constant, _ = fitted(rows, lr=0.02)
    assert_same_bits(fitted(rows, lr=lambda epoch: 0.02)[0], constant)
    assert not torch.equal(constant["gate.linear.weight"], expected["gate.linear.weight"])


def test_an_interrupted_training_with_a_factory_ends_in_the_same_bits(rows, tmp_path):
    options = {"optimizer": functools.partial(torch.optim.RMSprop, momentum=0.9), "lr": mb.schedules.Cosine(0.01, 0, 4)}
    expected, _ = fitted(rows, epochs=4, **options)

    class Stop(Exception):
        pass

    def stop(moment):
        if moment.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        fitted(rows, epochs=4, folder=tmp_path, on_epoch=stop, **options)
    epochs = []
    assert_same_bits(fitted(rows, epochs=4, folder=tmp_path, on_epoch=epochs.append, **options)[0], expected)
    assert [moment.epoch for moment in epochs] == [3, 4]
