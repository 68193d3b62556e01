import json
import random
import subprocess

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from moebius.gates.linear import Linear as LinearGate
from moebius.kit.errors import StudyError, TrainingError
from moebius.lab.training.checkpoint import Progress, path_before, restore, restore_weights, save, save_weights
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.optimizer import build_optimizer
from moebius.layers.mixture import Mixture

CONV = {
    "gate": {"kind": "conv", "filters": [4], "hidden": [8]},
    "experts": {"kind": "conv", "count": 2, "filters": [4, 8], "hidden": [8]},
    "combine": {"kind": "weighted_sum"},
}
NESTED = {
    "gate": {"kind": "mlp", "hidden": [4]},
    "experts": [{"kind": "linear"}, {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear"}}],
    "combine": {"kind": "weighted_sum"},
}
LOSSES = [{"kind": "batch_entropy", "weight": {"kind": "linear", "start": 0.0, "end": 0.1, "epochs": 2}}]
SGD = {"kind": "sgd", "lr": 0.05, "momentum": 0.9}
COSINE = {"kind": "adam", "lr": {"kind": "cosine", "start": 1e-2, "end": 0.0, "epochs": 2}}

BIASED = {
    "experts": {"kind": "linear", "count": 4},
    "router": {"kind": "top_k", "k": 2, "normalisation": "sigmoid", "bias_rate": 0.001, "experts": 4},
    "combine": {"kind": "weighted_sum"},
}
CASES = {
    "linear": ({}, {}, 0),
    "conv": (CONV, {}, 0),
    "conv-bf16": (CONV, {"precision": "bf16", "optimizer": COSINE}, 0),
    "conv-sgd": (CONV, {"optimizer": SGD, "clip_norm": 0.5}, 0),
    "nested-late-gate": (NESTED, {"optimizer": SGD, "gate": {"start_epoch": 0.5}, "losses": LOSSES}, 0),
    "late-experts-amsgrad": (
        NESTED,
        {"optimizer": {"kind": "adamw", "lr": 0.01, "amsgrad": True}, "experts": {"start_epoch": 1}},
        0,
    ),
    "bias": (BIASED, {}, 0),
    "bias-late-all": (BIASED, {"gate": {"start_epoch": 0.5}, "experts": {"start_epoch": 1}}, 0),
    "validation": ({}, {"epochs": 4, "optimizer": {"kind": "adam", "lr": 0.1}}, 40),
}


def files(folder):
    paths = [folder / "metrics.jsonl", *(folder / "state").glob("*.safetensors")]
    return {path.name: path.read_bytes() for path in paths}


def assert_same(trained, other):
    ours, theirs = trained.model.state_dict(), other.model.state_dict()
    assert trained.epoch == other.epoch
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for split in ("train", "test"):
        rows, other_rows = getattr(trained, split), getattr(other, split)
        assert torch.equal(rows.losses, other_rows.losses)
        for path, weights in rows.gates.items():
            assert torch.equal(weights, other_rows.gates[path])


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_ends_in_the_same_bits(case, small_data, settings, build, interrupted, tmp_path):
    model, training, validation_rows = CASES[case]
    data, create = small_data(validation_rows=validation_rows), build(small_data(), **model)
    uninterrupted = interrupted(tmp_path / "whole", create, data, settings(**training))
    # Drawn once per case: broken off at three random moments of the six steps or more.
    draw = random.Random(case)
    after = (draw.randint(1, 2), draw.randint(1, 2), 1)
    resumed = interrupted(tmp_path / "pieces", create, data, settings(**training), after)
    assert_same(uninterrupted, resumed)
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")
    if validation_rows:
        assert "best.safetensors" in files(tmp_path / "pieces")


@pytest.mark.parametrize("after", [(1,), (2,), (3,), (4,), (5,), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("seconds", [1e-9, 3600.0])
def test_dropout_draws_the_same_numbers_wherever_it_stopped(
    after, seconds, small_data, settings, interrupted, tmp_path
):
    data = small_data()

    def create():
        experts = [nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 20)) for _ in "ab"]
        return Mixture(LinearGate(64, 2), experts)

    if seconds > 1 and after == (1, 1, 1, 1, 1):
        after = (4,)  # with a checkpoint an epoch, one step at a time would never end
    chosen = settings(checkpoint_seconds=seconds)
    assert_same(
        interrupted(tmp_path / "whole", create, data, chosen),
        interrupted(tmp_path / "pieces", create, data, chosen, after),
    )
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")


def test_batch_statistics_are_kept(small_data, settings, interrupted, tmp_path):
    data = small_data()

    def create():
        experts = [nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 20)) for _ in "ab"]
        return Mixture(LinearGate(64, 2), experts)

    uninterrupted = interrupted(tmp_path / "whole", create, data, settings())
    assert_same(uninterrupted, interrupted(tmp_path / "pieces", create, data, settings(), (2, 2)))
    assert uninterrupted.model.state_dict()["experts.0.0.num_batches_tracked"] == 6


@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_stopped_by_its_listener(kind, small_data, settings, build, tmp_path, alone):
    data = small_data()
    uninterrupted = alone(build(data), data, settings(), 0, tmp_path / "whole").train()

    def stop(event):
        if event.kind == kind and event.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone(build(data), data, settings(), 0, tmp_path / "pieces", listen=stop).train()
    assert_same(uninterrupted, alone(build(data), data, settings(), 0, tmp_path / "pieces").train())
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")


def test_a_finished_run_only_evaluates(small_data, settings, build, tmp_path, alone):
    data, events = small_data(), []
    uninterrupted = alone(build(data), data, settings(), 0, tmp_path).train()
    before = files(tmp_path)
    again = alone(build(data), data, settings(), 0, tmp_path, listen=events.append).train()
    assert_same(uninterrupted, again)
    assert [event.kind for event in events] == ["resumed"]
    assert files(tmp_path) == before


def test_moments_come_back_in_the_layout_of_their_parameters(small_data, settings, build, tmp_path, alone):
    data = small_data()
    alone(build(data, **CONV), data, settings(epochs=1), 0, tmp_path).train()
    loop = alone(build(data, **CONV), data, settings(epochs=1), 0, tmp_path)
    ((progress,), failures) = restore(loop.checkpoint, loop.engine, loop.optimizer)
    assert failures == {}
    assert (progress.epoch, progress.step, progress.batch) == (1, 3, 0)
    for parameter in loop.model.parameters():
        state = loop.optimizer.state[parameter]
        assert state["step"] == 3
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()


@pytest.mark.parametrize("runs", [1, 3])
def test_save_and_restore_are_inverse(runs, settings, build, small_data, tmp_path):
    data, path = small_data(), tmp_path / "checkpoint.safetensors"
    engine, other = (Engine([Member(build(data), settings(), run, tmp_path) for run in range(runs)]) for _ in range(2))
    optimizer = build_optimizer(engine.models[0], settings(), engine.trained)
    engine.call.model(torch.rand(4 * runs, 1, 8, 8)).sum().backward()
    optimizer.step()
    progress = [Progress(1, 5, 2, 80, 7, {"loss": 0.1 + run}, [{"epoch": 1}], 1) for run in range(runs)]
    failures = {1: TrainingError("epoch 1, step 5: loss is not finite", "lr=1e-4")} if runs > 1 else {}
    torch.manual_seed(5)
    save(path, engine, optimizer, progress, failures)
    drawn = torch.rand(3)
    again = build_optimizer(other.models[0], settings(), other.trained)
    restored, errors = restore(path, other, again)
    assert restored == progress
    assert {run: str(error) for run, error in errors.items()} == {run: str(error) for run, error in failures.items()}
    assert torch.equal(torch.rand(3), drawn)
    for name, parameter in engine.parameters.items():
        assert torch.equal(parameter, other.parameters[name])
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, again.state[other.parameters[name]][key])
    assert restore(tmp_path / "none.safetensors", other, again) is None


@pytest.mark.parametrize("name", ["progress", "cohort", "stack"])
def test_a_checkpoint_of_the_first_version_says_so(name, settings, build, small_data, tmp_path):
    data, path = small_data(), tmp_path / "state" / "checkpoint.safetensors"
    engine = Engine([Member(build(data), settings(), 0, tmp_path)])
    optimizer = build_optimizer(engine.models[0], settings())
    path.parent.mkdir()
    save_file({"random/cpu": torch.zeros(1)}, path, {name: "{}"})
    with pytest.raises(StudyError, match=r"is a checkpoint of moebius 0\.1") as error:
        restore(path, engine, optimizer)
    assert str(path.parent) in (error.value.fix or "")


def test_nothing_depends_on_the_machine_or_the_time(small_data, settings, build, tmp_path, alone):
    data = small_data()
    for name in "ab":
        alone(build(data), data, settings(), 0, tmp_path / name).train()
    assert files(tmp_path / "a") == files(tmp_path / "b")


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "no safetensors": lambda content: b"x" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_a_fix(damage, small_data, settings, build, tmp_path, alone):
    data = small_data()
    alone(build(data), data, settings(epochs=1), 0, tmp_path).train()
    path = tmp_path / "state" / "checkpoint.safetensors"
    for each in (path, path_before(path)):
        each.write_bytes(DAMAGES[damage](each.read_bytes()))
    content = path.read_bytes()
    with pytest.raises(StudyError, match=r"the checkpoint cannot be read .* and so is the one before") as error:
        alone(build(data), data, settings(), 0, tmp_path).train()
    assert str(path) in error.value.message
    assert path.read_bytes() == content
    subprocess.run(error.value.fix or "", shell=True, check=True)
    assert alone(build(data), data, settings(), 0, tmp_path).train().epoch == 2
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(damage, small_data, settings, build, tmp_path, alone):
    data, events = small_data(), []
    for name in "ab":
        alone(build(data), data, settings(epochs=1), 0, tmp_path / name).train()
    path = tmp_path / "a" / "state" / "checkpoint.safetensors"
    content = path.read_bytes()
    if damage == "missing":  # a process died between the two renames
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](content))
    for name, listen in (("a", events.append), ("b", lambda event: None)):
        alone(build(data), data, settings(), 0, tmp_path / name, listen=listen).train()
    warnings = [event.text for event in events if "goes on from the one before" in event.text]
    assert len(warnings) == (damage != "missing")
    assert all(str(path) in text for text in warnings)
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.exists() == (damage != "missing")
    aside.unlink(missing_ok=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_checkpoint_without_digest_is_read_as_before(small_data, settings, build, tmp_path, alone):
    data = small_data()
    for name in "ab":
        alone(build(data), data, settings(epochs=1), 0, tmp_path / name).train()
    path = tmp_path / "a" / "state" / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    del state["digest"]
    save_file(load_file(path), path, {"state": json.dumps(state)})
    path_before(path).unlink()
    for name in "ab":
        alone(build(data), data, settings(), 0, tmp_path / name).train()
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_checkpoint_of_another_model_is_refused(small_data, settings, build, tmp_path, alone):
    data = small_data()
    alone(build(data), data, settings(epochs=1), 0, tmp_path).train()
    with pytest.raises(StudyError, match="the checkpoint cannot be read"):
        alone(build(data, **CONV), data, settings(), 0, tmp_path).train()


def test_a_file_of_weights_alone_is_no_checkpoint(small_data, settings, build, tmp_path, alone):
    data, path = small_data(), tmp_path / "state" / "checkpoint.safetensors"
    save_weights(path, build(data)())
    with pytest.raises(StudyError, match="the checkpoint cannot be read"):
        alone(build(data), data, settings(), 0, tmp_path).train()


def test_weights_come_back_whatever_their_layout(small_data, build, tmp_path):
    data = small_data()
    model, path = build(data, **CONV)(), tmp_path / "weights.safetensors"
    save_weights(path, model)
    before = path.read_bytes()
    save_weights(path, model.to(memory_format=torch.channels_last))
    assert path.read_bytes() == before
    other = build(data, **CONV)().to(memory_format=torch.channels_last)
    restore_weights(path, other)
    assert all(torch.equal(value, load_file(path)[name]) for name, value in other.state_dict().items())


def test_best_weights_that_are_damaged_or_lost_are_refused(small_data, settings, build, tmp_path, alone):
    data = small_data(validation_rows=40)
    alone(build(data), data, settings(), 0, tmp_path).train()
    best = tmp_path / "state" / "best.safetensors"
    for spoil in (lambda: best.write_bytes(b"x" * 100), best.unlink):
        spoil()
        with pytest.raises(StudyError, match=r"best.safetensors: the checkpoint cannot be read") as caught:
            alone(build(data), data, settings(), 0, tmp_path).train()
        assert (caught.value.fix or "").startswith(f"mv {tmp_path}/state {tmp_path}/state.damaged ")
