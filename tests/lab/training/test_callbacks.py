"""What callbacks of `mb.fit` receive, and when; how they end a training; that they change nothing."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.callbacks import Callbacks, Moment, as_callbacks


def rows(count=200):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, generator=random)
    return x, (x[:, 0] > 0).long()


def mixture():
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2)) for _ in range(2)]
    return mb.Mixture(mb.gates.Linear(4, 2), experts, combine=mb.LogMixture())


def copies(model):
    return [value.clone() for value in model.state_dict().values()]


def equal(first, second):
    return all(map(torch.equal, first, second))


def test_an_epoch_has_the_figures_of_all_splits_by_name():
    moments, entropy = [], (mb.losses.batch_entropy, 0.1)
    fitted = mb.fit(
        mixture(),
        rows(),
        epochs=3,
        batch_size=60,
        test=rows(30),
        metrics={"worst": lambda output, target: nn.functional.nll_loss(output, target, reduction="none").max()},
        losses=[entropy],
        lr=mb.schedules.Linear(0.1, 0.0, epochs=3),
        on_epoch=moments.append,
    )
    assert [(moment.epoch, moment.step) for moment in moments] == [(1, 3), (2, 6), (3, 9)]
    assert {(moment.epochs, moment.steps) for moment in moments} == {(3, 9)}
    for moment, entry in zip(moments, fitted.metrics, strict=True):
        assert moment.metrics == {
            "train/accuracy": entry["train"]["accuracy"],
            "train/loss": entry["train"]["loss"],
            "train/terms/cross_entropy": entry["train"]["terms"]["cross_entropy"],
            "train/terms/batch_entropy": entry["train"]["terms"]["batch_entropy"],
            **{
                f"{split}/{name}": value
                for split in ("validation", "test")
                for name, value in (
                    ("accuracy", entry[split]["accuracy"]),
                    ("loss", entry[split]["loss"]),
                    ("worst", entry[split]["metrics"]["worst"]),
                )
            },
        }
        assert moment.model is fitted.model
        assert moment.learning_rates == {"all": pytest.approx(0.1 * (1 - (moment.epoch - 1 / 3) / 3))}
    assert repr(moments[0]).startswith("Moment(epoch 1 of 3, step 3 of 9: train/accuracy 0.")


def test_every_step_is_told_once_and_in_order_with_its_own_figures():
    steps, epochs = [], []
    mb.fit(mixture(), rows(), epochs=2, batch_size=60, on_step=[steps.append], on_epoch=epochs.append)
    assert [(moment.epoch, moment.step) for moment in steps] == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert all(set(moment.learning_rates) == {"all"} for moment in steps)
    for epoch in (1, 2):
        losses = [moment.metrics["train/loss"] for moment in steps if moment.epoch == epoch]
        assert len({*losses}) == 3
        mean = sum(loss * count for loss, count in zip(losses, (60, 60, 60), strict=True)) / 180
        assert epochs[epoch - 1].metrics["train/loss"] == pytest.approx(mean)


@pytest.mark.parametrize("name", ["on_epoch", "on_step"])
@pytest.mark.parametrize("trains", ["both", "gate"])
def test_a_callback_changes_no_bit_whatever_it_draws_and_calls(name, trains):
    x, _ = rows()
    plain = mixture()
    mb.fit(plain, rows(), trains=trains, epochs=3, batch_size=30, checkpoint_seconds=1e-9)

    def look(moment):
        torch.rand(3)
        moment.model.eval()
        moment.model(x).sum().backward()

    watched = mixture()
    mb.fit(watched, rows(), trains=trains, epochs=3, batch_size=30, checkpoint_seconds=1e-9, **{name: look})
    assert equal(copies(plain), copies(watched))


def test_a_callback_sees_the_model_of_the_user_while_experts_stand_in_adapters():
    names, model = [], mixture()
    mb.fit(model, rows(), trains="gate", epochs=2, on_epoch=lambda moment: names.append([*moment.model.state_dict()]))
    assert names == [[*model.state_dict()]] * 2


def test_true_ends_the_training_after_the_epoch():
    heard = []
    fitted = mb.fit(mixture(), rows(), epochs=9, on_epoch=[lambda moment: moment.epoch == 2, heard.append])
    assert len(fitted.metrics) == len(heard) == 2
    goes_on = mb.fit(mixture(), rows(), epochs=3, on_epoch=lambda moment: 1)  # not True itself
    assert len(goes_on.metrics) == 3


def test_true_ends_the_epoch_under_way_which_is_evaluated(tmp_path):
    def end(moment):
        return moment.step == 4

    options = {"batch_size": 30, "epochs": 4, "checkpoint_seconds": 1e-9, "validation": 0.1}
    fitted = mb.fit(mixture(), rows(), on_step=end, folder=tmp_path, **options)
    assert len(fitted.metrics) == 1
    assert fitted.metrics[0]["validation"]["accuracy"] == fitted.held_out.accuracy
    again, moments = mixture(), []
    fitted = mb.fit(again, rows(), folder=tmp_path, on_epoch=moments.append, **options)  # the same folder goes on
    assert [(moment.epoch, moment.step) for moment in moments] == [(2, 10), (3, 16), (4, 22)]


@pytest.mark.parametrize("name", ["on_epoch", "on_step"])
def test_an_exception_passes_through_and_leaves_the_model_as_it_was(name):
    class Stop(Exception):
        pass

    def stop(moment):
        raise Stop

    model = mixture()
    model.experts[0][0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    kinds = [type(expert) for expert in model.experts]
    with pytest.raises(Stop):
        mb.fit(model, rows(), trains="gate", epochs=2, **{name: stop})
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [type(expert) for expert in model.experts] == kinds


def test_what_is_no_function_is_refused():
    for name in ("on_epoch", "on_step"):
        with pytest.raises(ArgumentError, match=f"{name}: needs a function of a moment, or several, got 3") as error:
            as_callbacks(name, [print, 3])
        assert error.value.fix == f"{name}=lambda moment: print(moment)"


def test_without_callbacks_nothing_is_kept_for_them():
    def fail(moment):
        raise AssertionError

    moment = Moment(nn.Identity(), 1, 1, 1, 1, {}, {})
    assert not Callbacks().call([moment], (), torch.device("cpu"))
    assert not Callbacks(on_step=[fail]).call([], [fail], torch.device("cpu"))


def test_a_step_that_is_repeated_is_told_once():
    steps, broken = [], mixture()
    with pytest.raises(mb.MoebiusError, match="not a finite number"):
        mb.fit(
            broken, rows(), epochs=9, batch_size=30, optimizer="sgd", lr=1e38, on_step=steps.append,
            checkpoint_seconds=1e-9,
        )  # fmt: skip
    numbers = [moment.step for moment in steps]
    assert numbers == sorted({*numbers})
