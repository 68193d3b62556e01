"""`Settings`: plain values of a recipe, objects in Python, and the plain value back."""

import functools
from math import log

import pytest
import torch
from pydantic import ValidationError

from moebius.lab.checks.wording import problems_of
from moebius.lab.data.augmentation.flip import Flip
from moebius.lab.training.settings import Settings, TrainingKeywords
from moebius.losses.z_loss import z_loss
from moebius.routers.soft import Soft
from moebius.schedules.constant import Constant

PLAIN = {"epochs": 1, "batch_size": 8, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}
zero = Constant(0)
STEP = {"kind": "step", "start": 1.0, "factor": 0.5, "every": 2}


def test_plain_values_become_schedules_and_functions():
    losses = [{"kind": "batch_entropy", "weight": 0.3}, {"kind": "sample_entropy"}]
    settings = Settings.model_validate({**PLAIN, "gate": {"lr": STEP, "start_epoch": 0.5}, "losses": losses})
    assert settings.optimizer.kind == "sgd"
    assert settings.optimizer.keywords == {"momentum": 0.9}
    assert (settings.lr or zero)(3.0) == 0.1
    assert [(settings.gate.lr or zero)(epoch) for epoch in (0.0, 2.0)] == [1.0, 0.5]
    assert (settings.gate.start_epoch, settings.experts.lr) == (0.5, None)
    batch, sample = settings.losses
    assert (batch.weight(0.0), sample.weight(0.0)) == (0.3, 1.0)
    assert batch.function(Soft()(torch.zeros(1, 2))).item() == pytest.approx(-log(2))


def test_values_are_written_as_they_were_read():
    plain = {
        **PLAIN,
        "losses": [{"kind": "best_fit", "weight": 1, "floor": STEP}],
        "router": {"temperature": STEP, "noise": 1},
        "cross_entropy": 0,
        "augment": [{"kind": "flip"}],
        "watch": {"plateau": {"patience": 2}},
    }
    written = Settings.model_validate(plain).model_dump(mode="json", exclude_unset=True)
    assert written == plain
    assert Settings.model_validate(written) == Settings.model_validate(plain)


@pytest.mark.parametrize(
    ("optimizer", "kind", "rate"),
    [
        ("sgd", "sgd", 1e-3),
        (torch.optim.SGD, torch.optim.SGD, None),
        ({"kind": torch.optim.SGD, "lr": 0.5, "momentum": 0.9}, torch.optim.SGD, 0.5),
    ],
)
def test_an_optimizer_is_a_name_a_factory_or_a_mapping(optimizer, kind, rate):
    settings = Settings.model_validate({"optimizer": optimizer})
    assert settings.optimizer.kind == kind
    assert (settings.lr and settings.lr(0.0)) == rate


def test_objects_are_used_as_they_are():
    def rate(epoch):
        return 0.5 / (1 + epoch)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    flip, loss = Flip(), functools.partial(z_loss)
    values = {"gate": {"lr": rate}, "augment": [flip], "losses": [loss], "cross_entropy": rate}
    settings = Settings.model_validate({"optimizer": optimizer, **values})
    assert settings.optimizer.kind is optimizer
    assert (settings.gate.lr or zero)(1) == settings.cross_entropy(1) == 0.25
    assert settings.augment[0].function is flip
    assert settings.losses[0].function is loss
    assert Settings.model_validate({"losses": settings.losses, "gate": settings.gate}).gate is settings.gate


WRONG = [
    ({"gate": {"freeze": True}, "experts": {"freeze": True}}, "gate.freeze: leaves nothing to train"),
    ({"losses": [{"kind": "batch_entropy"}] * 2}, "losses[1]: names a gate loss twice"),
    ({"losses": [{"kind": "batch_entropi"}]}, "losses[0].kind: no such kind, got 'batch_entropi'; did you mean batch_"),
    ({"optimizer": "adan"}, "optimizer.kind: no such kind, got 'adan'; did you mean adam or adamw?"),
    ({"optimizer": 3}, "optimizer.kind: no such kind, got 3; one of adam, adamw, sgd"),
    ({"optimizer": {"kind": "sgd", "momentun": 0.9}}, "optimizer.momentun: sgd has no such keyword, got 0.9; did you"),
    ({"optimizer": {"kind": "sgd", "momentum": -1.0}}, "optimizer: torch refuses it (Invalid momentum value: -1.0)"),
    ({"optimizer": {"kind": "sgd", "foreach": True}}, "optimizer: torch refuses it (`fused` and `foreach`"),
    ({"optimizer": {"lr": None}}, "optimizer.lr: needs a number or a schedule, got null; lr: 1e-3"),
    ({"optimizer": {"kind": torch.optim.SGD, "lr": -1}}, "optimizer.lr: needs a number of at least 0, got -1"),
    ({"gate": {"lr": float("nan")}}, "gate.lr: needs a finite number, got nan"),
    ({"router": {"k": float("inf")}}, "router.k: needs a finite number, got inf"),
    ({"clip_norm": float("nan")}, "clip_norm: needs a finite number, got nan"),
    ({"epochs": True}, "epochs: needs a whole number, got true"),
    ({"augment": {}}, "augment: needs a list, got {}"),
    ({"augment": [{"kind": "flop"}]}, "augment[0].kind: no such kind, got 'flop'; did you mean flip?"),
    ({"views": 2}, "views: is a number of augmented copies, and nothing augments, got 2; augment: [{kind: flip}]"),
    ({"watch": {"mesure": "loss"}}, "watch.mesure: no such key, got 'loss'; did you mean measure?"),
]


@pytest.mark.parametrize(("values", "line"), WRONG, ids=[line.split(",")[0] for _, line in WRONG])
def test_a_value_that_breaks_a_rule_is_named(values, line):
    with pytest.raises(ValidationError) as error:
        Settings.model_validate(values)
    (problem,) = problems_of(error.value, Settings)
    assert problem.line().startswith(line)


def test_all_problems_come_together():
    values = {key: value for changes, _ in WRONG[:12] for key, value in changes.items()} | {"batch_size": "x"}
    values["optimizer"] = {"kind": "sgd", "momentun": 0.9, "lr": -1}
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({**values, "losses": [{"kind": "batch_entropi", "weight": "x"}]})
    places = {".".join(map(str, problem.path)) for problem in problems_of(error.value, Settings)}
    assert places == {
        *("batch_size", "optimizer.momentun", "optimizer.lr", "losses.0.kind", "losses.0.weight"),
        *("gate.lr", "router.k"),
    }


def test_a_checker_knows_the_fields_and_the_short_forms():
    assert set(TrainingKeywords.__annotations__) == {*Settings.model_fields, "lr", "patience", "plateau"}
