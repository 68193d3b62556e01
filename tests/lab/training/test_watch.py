"""What held-out rows decide, in a training that goes on from it: the end, the best weights, the rates."""

import pytest
import torch
from safetensors.torch import load_file

from moebius.lab.training.checkpoint import restore
from moebius.lab.training.settings import Watch
from moebius.lab.training.watch_state import watch_state

# Rates that grow until they spoil the model: epochs without a better one come soon.
GROWING = {"kind": "step", "start": 1e-2, "factor": 30.0, "every": 1}
SPOILING = {"epochs": 9, "optimizer": {"kind": "sgd", "lr": GROWING, "momentum": 0.9}}
# So fast that nothing gets better for long, and so long that all rules come to bear.
RESTLESS = {"epochs": 9, "optimizer": {"kind": "adam", "lr": 0.3}}


@pytest.fixture
def train(small_data, settings, build, tmp_path, alone):
    """Trains on held-out rows with a watch; gives the loop, what came out, and the state at each epoch's end."""
    data = small_data(validation_rows=40)

    def trained(watch, folder="run", **changes):
        states, rates = [], []

        def look(event):
            if event.kind == "epoch":
                states.append({name: value.clone() for name, value in loop.model.state_dict().items()})
                rates.append({group["name"]: group["lr"] for group in loop.optimizer.param_groups})

        chosen = settings(**{**SPOILING, **changes}, watch=watch)
        loop = alone(build(data), data, chosen, 0, tmp_path / folder, listen=look)
        return loop, loop.train(), states, rates

    return trained


def values(trained, measure="accuracy"):
    return [entry["validation"][measure] for entry in trained.metrics]


def equal(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
def test_training_ends_after_patience_and_reports_the_best_weights(measure, train):
    loop, trained, states, _ = train({"measure": measure, "patience": 2})
    measures = values(trained, measure)
    best = measures.index(max(measures) if measure == "accuracy" else min(measures)) + 1
    assert (trained.epoch, len(measures)) == (best, best + 2)
    assert len(measures) < 9
    assert equal(trained.model.state_dict(), states[best - 1])
    assert not equal(trained.model.state_dict(), states[-1])
    assert trained.held_out.accuracy == trained.metrics[best - 1]["validation"]["accuracy"]
    assert trained.reported["epoch"] == best
    assert loop.record.progress.epoch == best + 2


def test_without_patience_training_goes_on_to_its_end(train):
    _, trained, _, _ = train({})
    assert len(trained.metrics) == 9
    assert trained.epoch == watch_state(values(trained), Watch()).best


def test_nothing_above_leaves_the_last_epoch(train):
    loop, trained, states, _ = train({"above": 1.0, "restart": True}, epochs=3)
    assert trained.epoch == 3
    assert loop.record.progress.best is None
    assert not loop.record.best_path.exists()
    assert equal(trained.model.state_dict(), states[-1])


def test_the_best_epoch_is_one_above(train):
    _, free, _, _ = train({}, "free", epochs=4)
    measures = values(free)
    assert measures.index(max(measures)) > 0
    bar = max(measures)
    _, trained, _, _ = train({"above": bar - 1e-9}, "bar", epochs=4)
    assert values(trained) == measures
    assert trained.epoch == measures.index(bar) + 1


def test_restart_begins_each_epoch_from_the_best_weights_and_keeps_the_optimizer_state(
    small_data, settings, build, tmp_path, alone
):
    data, begun, moments = small_data(validation_rows=40), [], []
    loop = alone(build(data), data, settings(**RESTLESS, watch={"restart": True}), 0, tmp_path)
    train_epoch = loop.train_epoch

    def look():
        begun.append({name: value.clone() for name, value in loop.model.state_dict().items()})
        state = loop.optimizer.state
        moments.append([state[weights]["exp_avg"].clone() for weights in loop.leaves if weights in state])
        train_epoch()
        ended.append({name: value.clone() for name, value in loop.model.state_dict().items()})
        left.append([loop.optimizer.state[weights]["exp_avg"].clone() for weights in loop.leaves])

    ended, left = [], []
    loop.train_epoch = look
    trained = loop.train()
    measures = values(trained)
    bests = [watch_state(measures[:count], loop.record.watch).best for count in range(1, 10)]
    assert len(set(bests)) < len(bests)  # some epochs were no better
    for epoch in range(1, 9):
        assert equal(begun[epoch], ended[bests[epoch - 1] - 1])
        assert all(torch.equal(a, b) for a, b in zip(moments[epoch], left[epoch - 1], strict=True))
        if bests[epoch - 1] < epoch:
            assert not equal(begun[epoch], ended[epoch - 1])
    assert loop.optimizer.state[loop.leaves[0]]["step"] == 27  # all steps, also those thrown away
    assert equal(trained.model.state_dict(), ended[bests[-1] - 1])


def test_rates_fall_by_the_verdict_and_no_further_than_least(train):
    plateau = {"patience": 1, "factor": 0.5, "least": 0.1}
    part_rates = {"gate": {"lr": 0.2}, "experts": {"lr": 0.05}}
    loop, trained, _, rates = train({"plateau": plateau}, **RESTLESS, **part_rates)
    falls = [watch_state(values(trained)[:count], loop.record.watch).falls for count in range(9)]
    assert max(falls) >= 2
    for count, rates_found in zip(falls, rates, strict=True):
        # A rate that is below `least` as it is stays as it is.
        assert rates_found == {"gate": pytest.approx(max(0.2 * 0.5**count, 0.1)), "experts": pytest.approx(0.05)}
    assert {rates_found["gate"] for rates_found in rates} == {0.2, 0.1}


def test_rates_fall_from_what_the_schedule_says(train):
    schedule = {"optimizer": {"kind": "sgd", "lr": {"kind": "linear", "start": 0.4, "end": 0.2, "epochs": 8}}}
    loop, trained, _, rates = train({"plateau": {"patience": 1, "factor": 0.9}}, **schedule)
    last = 2 / 3  # where the last of three steps begins
    assert watch_state(values(trained)[:-1], loop.record.watch).falls
    for epoch, rates_found in enumerate(rates):
        falls = watch_state(values(trained)[:epoch], loop.record.watch).falls
        expected = loop.settings.lr(epoch + last) * 0.9**falls
        assert rates_found == {"all": pytest.approx(expected)}


@pytest.mark.parametrize(
    "watch",
    [
        {"patience": 2},
        {"measure": "loss", "restart": True},
        {"restart": True, "plateau": {"patience": 1, "factor": 0.5, "least": 0.01}, "patience": 4},
    ],
    ids=["patience", "restart", "all"],
)
def test_a_resumed_run_is_the_uninterrupted_one(watch, small_data, settings, build, interrupted, tmp_path):
    data = small_data(validation_rows=40)
    chosen = settings(**RESTLESS, watch=watch)
    uninterrupted = interrupted(tmp_path / "whole", build(data), data, chosen)
    steps = 3 * len(uninterrupted.metrics)
    # Inside an epoch, right after the first one without a better, and in the last.
    after = (1, 4, steps - 5 - 2)
    resumed = interrupted(tmp_path / "pieces", build(data), data, chosen, after)
    assert resumed.metrics == uninterrupted.metrics
    assert resumed.epoch == uninterrupted.epoch
    assert equal(uninterrupted.model.state_dict(), resumed.model.state_dict())
    for name in ("checkpoint", "best"):
        weights, others = (load_file(tmp_path / run / "state" / f"{name}.safetensors") for run in ("whole", "pieces"))
        assert equal(weights, others)


def test_a_run_that_has_ended_early_is_not_gone_on_with(train, small_data, settings, build, tmp_path):
    loop, trained, _, _ = train({"patience": 1})
    again, same, states, _ = train({"patience": 1})
    assert states == []
    assert same.metrics == trained.metrics
    assert equal(same.model.state_dict(), trained.model.state_dict())
    ((progress,), _) = restore(loop.checkpoint, again.engine, again.optimizer)
    assert progress.epoch == len(trained.metrics) < 9


def test_without_held_out_rows_nothing_is_watched(small_data, settings, build, tmp_path, alone):
    data = small_data()
    watched = settings(epochs=3, watch={"patience": 1, "restart": True, "plateau": {"patience": 1}})
    weights = alone(build(data), data, watched, 0, tmp_path / "watched").train()
    others = alone(build(data), data, settings(epochs=3), 0, tmp_path / "plain").train()
    assert weights.metrics == others.metrics
    assert weights.epoch == 3
