import json
import random
from dataclasses import replace

import pytest
import torch

from moebius.kit.errors import StudyError
from moebius.lab.data.split import Split
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop

ADAM, SGD = {"kind": "adam", "lr": 1e-2}, {"kind": "sgd", "lr": 0.5, "momentum": 0.9}
CONV = {"kind": "conv", "filters": [4, 4], "hidden": [8]}
ENTROPY = [{"kind": "batch_entropy", "weight": 0.1}, {"kind": "sample_entropy", "weight": 0.01}]
LATE = {"kind": "linear", "start": 0.0, "end": 0.1, "epochs": 2}
# Model, training, rows held out, and what each run's training has of its own.
CASES = {
    "linear": ({}, {}, 0, [{}, {}, {}]),
    "predesigned": ({"gate": {"kind": "domain"}, "router": {"kind": "argmax"}}, {}, 0, [{}, {}]),
    "conv, own losses": (
        {"gate": CONV, "experts": {**CONV, "count": 2}, "combine": {"kind": "weighted_sum"}},
        {"optimizer": {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.1, "amsgrad": True}},
        0,
        [{}, {"losses": ENTROPY}, {"losses": [{"kind": "batch_variance", "weight": LATE}]}],
    ),
    "clipped, penalised, late gate": (
        {},
        {"optimizer": SGD, "clip_norm": 0.5, "l2": {"weight": 1e-2}, "gate": {"start_epoch": 0.5, "lr": 0.1}},
        0,
        [{}, {"cross_entropy": 2.0}],
    ),
    "experts compared": ({}, {"cross_entropy": 0}, 0, [{"losses": [{"kind": "best_expert"}]}] * 2),
    "annealed": (
        {},
        {"router": {"temperature": {"kind": "linear", "start": 2.0, "end": 0.5, "epochs": 2}}},
        0,
        [{}] * 2,
    ),
    "restarted": ({}, {"epochs": 5, "optimizer": SGD, "watch": {"restart": True}}, 40, [{}, {}, {}]),
}


@pytest.fixture
def precise(small_data):
    """Digits and textures as float64, so that what is equal but for rounding is told from what is not."""

    def load(validation_rows=0):
        data = small_data(validation_rows=validation_rows)

        def to_double(rows: Split) -> Split:
            return Split(rows.images.double() / 255, rows.labels, rows.domains)

        held_out = None if data.validation is None else to_double(data.validation)
        return replace(data, train=to_double(data.train), validation=held_out, test=to_double(data.test))

    return load


@pytest.fixture
def members(settings, build):
    """The runs of a case, with folders below `out`."""

    def create_members(out, case, data, listen=lambda event: None):
        model, training, _, changes_by_run = CASES[case]
        if model:
            model = {"experts": {"kind": "linear", "count": 2}, **model}

        def member(number, changes):
            def double():
                return build(data, **model)().to(
                    data.train.images.dtype if data.train.images.is_floating_point() else None
                )

            return Member(double, settings(**{**training, **changes}), number, out / str(number), listen)

        return [member(number, changes) for number, changes in enumerate(changes_by_run)]

    return create_members


def cohort(members, data, out, **more):
    return Loop(members, data, out / "cohort.safetensors", **more)


def files(out):
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != "timing.jsonl"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("case", CASES)
def test_each_run_comes_out_as_it_does_alone(case, precise, members, tmp_path, alone):
    data = precise(CASES[case][2])
    outcomes = dict(cohort(members(tmp_path / "cohort", case, data), data, tmp_path).train())
    assert list(outcomes) == list(range(len(CASES[case][3])))
    for run, member in enumerate(members(tmp_path / "alone", case, data)):
        by_itself = alone(member.build, data, member.settings, member.seed, member.folder).train()
        ours = outcomes[run]
        assert ours.epoch == by_itself.epoch
        assert len(ours.metrics) == len(by_itself.metrics)
        for entry, expected in zip(ours.metrics, by_itself.metrics, strict=True):
            close(entry, expected)
        for name, value in by_itself.model.state_dict().items():
            torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=0, atol=1e-8)
        for split in ("train", "test"):
            torch.testing.assert_close(getattr(ours, split).losses, getattr(by_itself, split).losses, rtol=0, atol=1e-8)
            assert torch.equal(getattr(ours, split).predictions, getattr(by_itself, split).predictions)
        assert (ours.one_expert is None, len(ours.alone)) == (by_itself.one_expert is None, len(by_itself.alone))
        assert ours.oracle == by_itself.oracle


def close(entry, expected):
    assert type(entry) is type(expected)
    if isinstance(entry, dict):
        assert entry.keys() == expected.keys()
        for key, value in entry.items():
            close(value, expected[key])
    elif isinstance(entry, str):
        assert entry == expected
    else:
        assert entry == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_runs_have_best_epochs_of_their_own(precise, members, tmp_path):
    data = precise(40)
    outcomes = dict(cohort(members(tmp_path, "restarted", data), data, tmp_path).train())
    best = {run: outcome.epoch for run, outcome in outcomes.items()}
    assert len(set(best.values())) > 1
    for run, outcome in outcomes.items():
        held_out = [entry["validation"]["accuracy"] for entry in outcome.metrics]
        assert best[run] == 1 + held_out.index(max(held_out))
        assert outcome.held_out.accuracy == max(held_out)


class Stop(Exception):
    """What interrupts a cohort."""


@pytest.mark.parametrize("case", ["linear", "conv, own losses", "clipped, penalised, late gate", "restarted"])
def test_an_interrupted_cohort_ends_in_the_same_bits(case, small_data, members, tmp_path):
    data = small_data(validation_rows=CASES[case][2])
    uninterrupted = dict(cohort(members(tmp_path / "whole", case, data), data, tmp_path / "whole").train())
    draw, left = random.Random(case), [0]

    def stop(event):
        if event.kind in ("step", "epoch"):
            left[0] -= 1
            if left[0] < 0:
                raise Stop

    runs = len(CASES[case][3])
    for _ in range(3):
        # Events of all runs: a step's or an epoch's end, in the middle of the runs or before the first.
        left[0] = draw.randint(runs, 2 * runs + 1)
        with pytest.raises(Stop):
            list(cohort(members(tmp_path / "pieces", case, data, stop), data, tmp_path / "pieces").train())
    events = []
    loop = cohort(members(tmp_path / "pieces", case, data, events.append), data, tmp_path / "pieces")
    resumed = dict(loop.train())
    assert [event.kind for event in events[:runs]] == ["resumed"] * runs
    assert events[0].step > 0
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")
    for run, outcome in uninterrupted.items():
        assert torch.equal(outcome.test.losses, resumed[run].test.losses)
        assert torch.equal(outcome.train.losses, resumed[run].train.losses)


def test_a_finished_cohort_only_evaluates_who_is_asked_for(small_data, members, tmp_path):
    data, events = small_data(), []
    uninterrupted = dict(cohort(members(tmp_path, "linear", data), data, tmp_path).train())
    before = files(tmp_path)
    again = dict(cohort(members(tmp_path, "linear", data, events.append), data, tmp_path).train({1}))
    assert list(again) == [1]
    assert torch.equal(again[1].test.losses, uninterrupted[1].test.losses)
    assert {event.kind for event in events} == {"resumed"}
    assert files(tmp_path) == before


def test_a_run_that_diverges_leaves_the_others_their_bits(small_data, settings, members, tmp_path):
    data = small_data()
    fine = dict(cohort(members(tmp_path / "fine", "linear", data), data, tmp_path / "fine").train())
    broken = members(tmp_path / "broken", "linear", data)

    def breaking():
        model = members(tmp_path, "linear", data)[1].build()
        with torch.no_grad():
            model.experts[0].linear.bias[3] = torch.inf
        return model

    broken[1] = replace(broken[1], build=breaking)
    failed = {}
    outcomes = dict(cohort(broken, data, tmp_path / "broken", on_failure=failed.__setitem__).train())
    assert list(outcomes) == [0, 2]
    assert list(failed) == [1]
    assert failed[1].message.startswith("epoch 1, step 1: cross_entropy is not a finite number")
    assert "experts.0.linear.bias" in failed[1].message
    for run in (0, 2):
        assert torch.equal(outcomes[run].test.losses, fine[run].test.losses)
        assert outcomes[run].metrics == fine[run].metrics
    # What is kept of it says the same again, and nobody trains.
    again, events = {}, []
    for run in (0, 2):
        broken[run] = replace(broken[run], listen=events.append)
    assert dict(cohort(broken, data, tmp_path / "broken", on_failure=again.__setitem__).train({1})) == {}
    assert again[1].message == failed[1].message
    assert {event.kind for event in events} == {"resumed"}


def test_a_run_that_diverges_unread_leaves_the_others_their_bits(small_data, settings, members, tmp_path):
    data = small_data()
    fine = dict(cohort(members(tmp_path / "fine", "linear", data), data, tmp_path / "fine").train())
    huge = {"kind": "z_loss", "weight": {"kind": "step", "start": 1e-30, "factor": 1e38, "every": 1}}
    broken = members(tmp_path / "broken", "linear", data)
    for run, member in enumerate(broken):
        chosen = settings(epochs=3, checkpoint_seconds=1e9, losses=[huge] * (run == 1))
        broken[run] = replace(member, settings=chosen)
    failed = {}
    loop = cohort(broken, data, tmp_path / "broken", on_failure=failed.__setitem__)
    outcomes = dict(loop.train())
    assert list(outcomes) == [0, 2]
    assert failed[1].message.startswith("epoch 3, step 7: total is not a finite number")
    for run in (0, 2):
        assert outcomes[run].metrics[:2] == fine[run].metrics


def test_times_of_the_runs_add_up(small_data, members, tmp_path):
    data = small_data()
    loop = cohort(members(tmp_path, "linear", data), data, tmp_path)
    list(loop.train())
    timing = [
        [json.loads(line) for line in (tmp_path / str(run) / "timing.jsonl").read_text().splitlines()]
        for run in range(3)
    ]
    assert timing[0] == timing[1] == timing[2]
    for entry in timing[0]:
        assert entry["images_per_second"] * entry["seconds"] == pytest.approx(120)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint_is_refused(content, small_data, members, tmp_path):
    (tmp_path / "cohort.safetensors").write_bytes(content)
    data = small_data()
    with pytest.raises(StudyError, match="the checkpoint cannot be read"):
        list(cohort(members(tmp_path, "linear", data), data, tmp_path).train())
