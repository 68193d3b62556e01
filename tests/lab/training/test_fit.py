"""`mb.fit`: training from Python."""

import logging

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.fit import fit
from moebius.lab.training.fit_settings import TRAINS


def blobs(rows=240, dtype=torch.float32):
    """Three classes, one to a corner; the fourth feature is noise."""
    random = torch.Generator().manual_seed(0)
    y = torch.randint(3, (rows,), generator=random)
    x = torch.randn(rows, 4, generator=random, dtype=torch.float64)
    x[torch.arange(rows), y] += 2.5
    return x.to(dtype), y


def expert():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def mixture(router=None, combine=None, dtype=torch.float32):
    torch.manual_seed(0)
    experts = [expert(), nn.Linear(4, 3), expert()]
    return mb.Mixture(mb.gates.MLP(4, 3, hidden=[8]), experts, router, combine or mb.LogMixture()).to(dtype)


def copy_state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal_states(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("trains", TRAINS)
def test_trains_what_it_is_asked_to_and_not_a_bit_more(trains):
    moe = mixture()
    gate, experts = copy_state(moe.gate), copy_state(moe.experts)
    flags = [parameter.requires_grad for parameter in moe.parameters()]
    kinds = [type(part) for part in moe.experts]
    fit(moe, blobs(), trains=trains, epochs=2, batch_size=40, optimizer="adamw", lr=0.01)
    assert equal_states(gate, copy_state(moe.gate)) == (trains == "experts")
    assert equal_states(experts, copy_state(moe.experts)) == (trains == "gate")  # batch statistics among them
    assert [parameter.requires_grad for parameter in moe.parameters()] == flags
    assert [type(part) for part in moe.experts] == kinds
    assert not any(part.training for part in moe.modules())


@pytest.mark.parametrize(("trains", "moved"), [("alternate", "gate"), ("gate_first", "gate")])
def test_the_gate_has_the_first_turn(trains, moved):
    moe = mixture()
    gate, experts = copy_state(moe.gate), copy_state(moe.experts)
    # One epoch of one step: in gate_first the first half is the whole of it.
    fit(moe, blobs(40), trains=trains, epochs=1, batch_size=40, validation=0.0)
    assert not equal_states(gate, copy_state(moe.gate))
    assert equal_states(experts, copy_state(moe.experts))


ROUTERS = [
    lambda: mb.routers.Soft(),
    lambda: mb.routers.TopK(2),
    lambda: mb.routers.Switch(capacity=None),
    lambda: mb.routers.Soft(normalisation="relu"),
]


@pytest.mark.parametrize("router", ROUTERS)
def test_remembered_experts_train_the_same_gate(router):
    trained = []
    for remember in (True, False):
        moe = mixture(router(), mb.WeightedSum(), torch.float64)
        result = fit(moe, blobs(dtype=torch.float64), trains="gate", epochs=4, batch_size=32, remember=remember)
        assert result.remembered == remember
        trained.append((copy_state(moe.gate), result))
    (gate, first), (second_gate, second) = trained
    for name, tensor in gate.items():
        torch.testing.assert_close(tensor, second_gate[name], rtol=0, atol=1e-10)
    torch.testing.assert_close(first.held_out.losses, second.held_out.losses, rtol=0, atol=1e-10)


def test_remembering_is_faster_in_calls():
    calls = 0

    def count(module, inputs, output):
        nonlocal calls
        calls += 1

    moe = mixture()
    moe.experts[1].register_forward_hook(count)
    fit(moe, blobs(), trains="gate", epochs=5, batch_size=20, validation=0.1)
    # The training rows and the held-out ones once each; not once a step (54 steps and 5 evaluations). One more is the
    # question how many outputs there are.
    assert calls == 3


def test_augmented_rows_are_not_remembered(caplog):
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    moe = mb.Mixture(mb.gates.Linear(64, 2), [mb.experts.Linear(64, 3) for _ in range(2)])
    with caplog.at_level(logging.INFO, "moebius"):
        result = fit(
            moe, (images, torch.arange(60) % 3), trains="gate", epochs=1, augment=[mb.lab.data.augmentation.Flip()]
        )
        assert not result.remembered
        fit(moe, (images, torch.arange(60) % 3), trains="gate", epochs=1)
    notes = [record.message for record in caplog.records if "frozen" in record.message]
    assert notes == [
        "2 frozen parts: computed in every step, because augmentation changes the rows",
        "2 frozen parts: computed once for every training row",
    ]


def test_learns_to_choose_between_experts_that_know_different_classes():
    x, y = blobs(600)
    torch.manual_seed(0)
    pair = mb.Mixture(mb.gates.Uniform(1), [nn.Linear(4, 2)])
    fit(pair, (x[y < 2], y[y < 2]), epochs=30, lr=0.03)
    only = nn.Linear(4, 1)
    experts = [
        mb.experts.Adapter(pair.experts[0], classes=[0, 1], total=3, frozen=True),
        mb.experts.Adapter(only, classes=[2], total=3, frozen=True),
    ]
    moe = mb.Mixture(mb.gates.Linear(4, 2), experts, combine=mb.LogMixture())
    result = fit(moe, (x, y), trains="gate", epochs=30, lr=0.03)
    assert result.final.accuracy > 0.9
    assert result.oracle > 0.9
    assert [expert.classes for expert in result.alone] == [(0, 1), (2,)]


def test_the_same_call_gives_the_same_bits_and_leaves_the_random_state():
    before = torch.get_rng_state()
    first, second = mixture(), mixture()
    torch.set_rng_state(before)
    fit(first, blobs(), epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    fit(second, blobs(), epochs=2)
    assert equal_states(copy_state(first), copy_state(second))


def test_goes_on_from_its_folder(tmp_path):
    uninterrupted, interrupted = mixture(), mixture()
    fit(uninterrupted, blobs(), epochs=4)

    class Stop(Exception):
        pass

    def stop(moment):
        if moment.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(interrupted, blobs(), epochs=4, folder=tmp_path, on_epoch=stop)
    resumed = mixture()
    epochs = []
    fit(resumed, blobs(), epochs=4, folder=tmp_path, on_epoch=epochs.append)
    assert [moment.epoch for moment in epochs] == [3, 4]
    assert equal_states(copy_state(resumed), copy_state(uninterrupted))
    assert all(parameter.requires_grad for parameter in interrupted.parameters())


def test_held_out_rows_end_it_and_choose_the_epoch():
    moe = mixture()
    x, y = blobs()
    noise = torch.randint(3, (80,), generator=torch.Generator().manual_seed(1))
    result = fit(moe, (x, y), validation=(torch.randn(80, 4), noise), epochs=40, patience=2, plateau=1)
    accuracies = [entry["validation"]["accuracy"] for entry in result.metrics]
    assert len(accuracies) < 40
    assert result.epoch == accuracies.index(max(accuracies)) + 1
    assert len(accuracies) - result.epoch == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": "gates"}, "trains: needs one of gate, experts"),
        ({"validation": 1.5}, "validation: needs rows, or a share"),
        ({"validation": 0.0, "patience": 2}, "validation: must hold rows out"),
        ({"epochs": 0}, "epochs: needs a number of at least 1, got 0\n  fix: epochs=20"),
        ({"data": (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))}, "data: needs as many targets as inputs"),
        ({"data": (torch.zeros(9, 4), torch.full((9,), 7)), "validation": 0.0}, "data: needs labels 0 … 2"),
        ({"optimizer": "adan"}, "optimizer.kind: no such kind, got 'adan'\n  fix: did you mean adam or adamw"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(changes, message):
    moe = mixture()
    before = copy_state(moe)
    arguments = {"data": blobs(), **changes}
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        fit(moe, **arguments)
    assert equal_states(before, copy_state(moe))


def test_nothing_to_train_is_said():
    frozen = [mb.experts.Adapter(nn.Linear(4, 3), frozen=True) for _ in range(2)]
    with pytest.raises(ArgumentError, match="have no parameters, or all are frozen"):
        fit(mb.Mixture(mb.gates.Uniform(2), frozen), blobs(), epochs=1)
    with pytest.raises(ArgumentError, match="must be a mixture, or have one inside"):
        fit(nn.Linear(4, 3), blobs())
