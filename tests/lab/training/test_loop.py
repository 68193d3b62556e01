import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from moebius.core.routing import step_routers

CONV = {"experts": {"kind": "conv", "count": 2, "filters": [4, 4], "hidden": [8]}, "combine": {"kind": "weighted_sum"}}


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_equals_a_hand_written_loop(clip_norm, small_data, settings, build, tmp_path, alone):
    data = small_data()
    trained = alone(build(data), data, settings(clip_norm=clip_norm), 3, tmp_path).train()

    def x(split, rows):
        return split.images[rows].float() / 255

    torch.manual_seed(3)
    model = build(data)()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch, reported in enumerate(trained.metrics):
        correct, loss_sum = 0, 0.0
        order = np.random.default_rng([3, epoch]).permutation(120)
        for first in range(0, 120, 40):
            rows = torch.from_numpy(order[first : first + 40])
            output, labels = model(x(data.train, rows)), data.train.labels[rows]
            loss = F.nll_loss(output, labels)
            correct += int((output.argmax(1) == labels).sum())  # before the update
            loss_sum += 40 * loss.item()
            optimizer.zero_grad()
            loss.backward()
            if clip_norm is not None:
                assert torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm) > clip_norm
            optimizer.step()
        assert reported["epoch"] == epoch + 1
        assert reported["train"]["accuracy"] == correct / 120
        assert reported["train"]["loss"] == pytest.approx(loss_sum / 120, rel=1e-6)
        assert reported["train"]["terms"]["cross_entropy"] == reported["train"]["loss"]
        with torch.no_grad():
            output = model(x(data.test, slice(None)))
        right = output.argmax(1) == data.test.labels
        assert reported["test"]["accuracy"] == pytest.approx(right.double().mean().item())
        assert reported["test"]["loss"] == pytest.approx(F.nll_loss(output, data.test.labels).item(), rel=1e-5)
        for number, name in enumerate(data.domains):
            by_hand = right[data.test.domains == number].double().mean().item()
            assert reported["test"]["accuracy_by_domain"][name] == pytest.approx(by_hand)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained.model.state_dict()[name], value, rtol=0, atol=1e-6)
    assert lines(tmp_path) == trained.metrics


BIASED = {
    "experts": {"kind": "linear", "count": 4},
    "router": {"kind": "top_k", "k": 2, "normalisation": "sigmoid", "bias_rate": 0.001, "experts": 4},
    "combine": {"kind": "weighted_sum"},
}


def test_the_balance_bias_moves_once_a_step_at_the_rate_of_the_moment(small_data, settings, build, tmp_path, alone):
    data = small_data()
    rate = {"kind": "step", "start": 0.004, "factor": 0.5, "every": 1}
    chosen = settings(router={"bias_rate": rate})
    trained = alone(build(data, **BIASED), data, chosen, 3, tmp_path).train()
    torch.manual_seed(3)
    model = build(data, **BIASED)()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(2):
        order = np.random.default_rng([3, epoch]).permutation(120)
        for first in range(0, 120, 40):
            rows = torch.from_numpy(order[first : first + 40])
            loss = F.cross_entropy(model(data.train.images[rows].float() / 255), data.train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.router.bias_rate = 0.004 * 0.5**epoch
            step_routers(model)
    assert torch.equal(trained.model.router.bias, model.router.bias)
    assert model.router.bias.count_nonzero() >= 2


def test_the_balance_bias_moves_in_each_step_where_nothing_trains_yet(small_data, settings, build, tmp_path, alone):
    """Counts that were left over to a later step would be in no checkpoint."""
    data = small_data()
    late = settings(epochs=1, gate={"start_epoch": 1}, experts={"start_epoch": 1})
    trained = alone(build(data, **BIASED), data, late, 3, tmp_path).train()
    assert trained.model.router.bias.abs().max().item() == pytest.approx(0.003)


def test_the_last_batch_counts_for_its_rows(small_data, settings, build, tmp_path, alone):
    data = small_data()
    # One batch of 100 and one of 20; with no learning the mean over all rows does not depend on the batches.
    still = {"kind": "sgd", "lr": 0.0}
    uneven = alone(build(data), data, settings(epochs=1, batch_size=100, optimizer=still), 0, tmp_path / "a").train()
    whole = alone(build(data), data, settings(epochs=1, batch_size=120, optimizer=still), 0, tmp_path / "b").train()
    assert uneven.metrics[0]["train"]["accuracy"] == whole.metrics[0]["train"]["accuracy"]
    assert uneven.metrics[0]["train"]["loss"] == pytest.approx(whole.metrics[0]["train"]["loss"], rel=1e-6)


def test_gate_losses_are_reported_and_weigh_in(small_data, settings, build, tmp_path, alone):
    data = small_data()
    losses = [{"kind": "batch_entropy", "weight": 0.1}, {"kind": "sample_entropy", "weight": 0.0}]
    entry = alone(build(data), data, settings(epochs=1, losses=losses), 0, tmp_path).train().metrics[0]["train"]
    terms = entry["terms"]
    assert list(terms) == ["cross_entropy", "batch_entropy", "sample_entropy"]
    assert entry["loss"] == pytest.approx(terms["cross_entropy"] + 0.1 * terms["batch_entropy"], rel=1e-6)
    assert -math.log(2) <= terms["batch_entropy"] < -0.5
    assert 0 < terms["sample_entropy"] <= math.log(2)


def test_gate_figures_are_those_of_its_weights_on_test_rows(small_data, settings, build, tmp_path, alone):
    data = small_data()
    trained = alone(build(data), data, settings(), 0, tmp_path).train()
    gate, weights = trained.metrics[-1]["gates"]["gate"], trained.test.gates["gate"].double()
    assert gate["importance"] == pytest.approx(weights.mean(0).tolist())
    assert gate["load"] == pytest.approx([(weights.argmax(1) == e).double().mean().item() for e in range(2)])
    assert gate["entropy"] == pytest.approx(-(weights * weights.log()).sum(1).mean().item())
    mean = weights.mean(0)
    assert gate["marginal_entropy"] == pytest.approx(-(mean * mean.log()).sum().item())


def test_the_best_epoch_by_validation_is_reported(small_data, settings, build, tmp_path, alone):
    data = small_data(validation_rows=40)
    assert data.validation is not None
    # A learning rate that grows until it spoils the model: the best epoch is not the last.
    growing = {"kind": "step", "start": 1e-2, "factor": 30.0, "every": 1}
    chosen = settings(epochs=5, optimizer={"kind": "sgd", "lr": growing, "momentum": 0.9})
    trained = alone(build(data), data, chosen, 0, tmp_path).train()
    accuracies = [entry["validation"]["accuracy"] for entry in trained.metrics]
    assert trained.epoch == 1 + accuracies.index(max(accuracies))
    assert trained.epoch < 5
    reported = trained.metrics[trained.epoch - 1]
    assert trained.test.accuracy == reported["test"]["accuracy"]
    assert trained.test.loss == reported["test"]["loss"]
    assert set(reported["validation"]) == {"accuracy", "loss", "accuracy_by_domain"}


def test_without_held_out_rows_the_last_epoch_is_reported(small_data, settings, build, tmp_path, alone):
    data = small_data()
    trained = alone(build(data), data, settings(), 0, tmp_path).train()
    assert trained.epoch == 2
    assert "validation" not in trained.metrics[0]
    assert trained.test.accuracy == trained.metrics[-1]["test"]["accuracy"]


def test_seeds_differ_and_repeat(small_data, settings, build, tmp_path, alone):
    data = small_data()
    runs = [alone(build(data), data, settings(), seed, tmp_path / str(n)).train() for n, seed in enumerate((0, 0, 1))]
    assert runs[0].metrics == runs[1].metrics
    assert runs[0].metrics != runs[2].metrics


def test_bf16_computes_in_bf16_and_keeps_float32_parameters(small_data, settings, build, tmp_path, alone):
    data = small_data()
    seen = set()

    def watched():
        model = build(data, **CONV)()
        model.experts[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
        return model

    trained = alone(watched, data, settings(precision="bf16"), 0, tmp_path / "bf16").train()
    exact = alone(build(data, **CONV), data, settings(), 0, tmp_path / "fp32").train()
    assert seen == {torch.bfloat16}
    assert {value.dtype for value in trained.model.parameters()} == {torch.float32}
    assert trained.metrics[-1]["train"]["loss"] == pytest.approx(exact.metrics[-1]["train"]["loss"], rel=0.02)
    assert trained.metrics[-1]["train"]["loss"] != exact.metrics[-1]["train"]["loss"]


def test_convolutions_run_channels_last(small_data, settings, build, tmp_path, alone):
    data = small_data()
    loop = alone(build(data, **CONV), data, settings(epochs=1), 0, tmp_path)
    seen = set()
    gate = loop.model.gate
    gate.register_forward_hook(
        lambda module, inputs, output: seen.add(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    loop.train()
    assert seen == {True}


def test_events_tell_epoch_step_and_figures(small_data, settings, build, tmp_path, alone):
    data, events = small_data(), []
    alone(build(data), data, settings(), 0, tmp_path, listen=events.append).train()
    assert [(event.kind, event.epoch, event.step) for event in events] == [
        *[("step", 1, step) for step in (1, 2, 3)],
        ("epoch", 1, 3),
        *[("step", 2, step) for step in (4, 5, 6)],
        ("epoch", 2, 6),
    ]
    metrics = lines(tmp_path)
    for event, entry in zip([events[3], events[7]], metrics, strict=True):
        assert (event.score, event.loss) == (entry["train"]["accuracy"], entry["train"]["loss"])
        assert event.test_score == entry["test"]["accuracy"]
        assert event.images_per_second > 0
        assert event.steps == 6


def test_times_stand_apart_and_add_up_over_an_interruption(small_data, settings, build, interrupted, tmp_path):
    data = small_data()
    interrupted(tmp_path, build(data), data, settings(), after=(2, 3))
    timing = lines(tmp_path, "timing.jsonl")
    assert [entry["epoch"] for entry in timing] == [1, 2]
    assert all(entry.keys() - {"digest"} == {"epoch", "seconds", "images_per_second"} for entry in timing)
    assert all(entry["seconds"] > 0 and entry["images_per_second"] > 0 for entry in timing)
    assert "seconds" not in (tmp_path / "metrics.jsonl").read_text()


def test_time_before_an_interruption_counts(small_data, settings, build, tmp_path, alone):
    data = small_data()

    def stop(event):
        raise KeyboardInterrupt

    first = alone(build(data), data, settings(epochs=1), 0, tmp_path, listen=stop)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    before = lines(tmp_path, "timing.jsonl")[0]["seconds"]
    (tmp_path / "timing.jsonl").write_text(
        json.dumps({"epoch": 1, "seconds": before + 1000, "images_per_second": 1.0}) + "\n"
    )
    alone(build(data), data, settings(epochs=1), 0, tmp_path).train()
    assert lines(tmp_path, "timing.jsonl")[0]["seconds"] > 1000
