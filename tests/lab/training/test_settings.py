from math import log

import pytest
import torch

from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.lab.training.settings import Settings
from moebius.routers.soft import Soft

PLAIN = {"epochs": 1, "batch_size": 8, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}


def test_plain_values_become_schedules_and_functions():
    settings = Settings.from_plain(
        {
            **PLAIN,
            "gate": {"lr": {"kind": "step", "start": 1.0, "factor": 0.5, "every": 2}, "start_epoch": 0.5},
            "losses": [{"kind": "batch_entropy", "weight": 0.3}, {"kind": "sample_entropy"}],
        }
    )
    assert settings.optimizer == "sgd"
    assert settings.optimizer_options == {"momentum": 0.9}
    assert settings.lr(3.0) == 0.1
    assert settings.gate.lr is not None
    assert [settings.gate.lr(epoch) for epoch in (0.0, 2.0)] == [1.0, 0.5]
    assert settings.gate.start_epoch == 0.5
    assert settings.experts.lr is None
    batch, sample = settings.losses
    assert (batch.weight(0.0), sample.weight(0.0)) == (0.3, 1.0)
    assert batch.function(Soft()(torch.zeros(1, 2))).item() == pytest.approx(-log(2))


def test_nothing_left_to_train_is_refused():
    with pytest.raises(ArgumentError, match="must leave the gate or the experts to train"):
        Settings.from_plain({**PLAIN, "gate": {"freeze": True}, "experts": {"freeze": True}})


def test_a_loss_named_twice_is_refused():
    losses = [{"kind": "batch_entropy", "weight": 0.1}, {"kind": "batch_entropy", "weight": 0.2}]
    with pytest.raises(ArgumentError, match="names a gate loss twice"):
        Settings.from_plain({**PLAIN, "losses": losses})


def test_unknown_loss_is_refused_with_the_closest_names():
    with pytest.raises(UnknownKindError, match="did you mean batch_entropy"):
        Settings.from_plain({**PLAIN, "losses": [{"kind": "batch_entropi"}]})
