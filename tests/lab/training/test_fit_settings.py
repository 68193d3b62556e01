"""The keywords of `mb.fit` are fields of `Settings`, with short forms, and what `trains` says of the parts."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.fit import fit
from moebius.lab.training.fit_settings import fit_settings
from moebius.lab.training.settings import Settings


@pytest.mark.parametrize(
    ("keywords", "plain"),
    [
        ({}, {}),
        ({"lr": 0.1}, {"optimizer": {"lr": 0.1}}),
        ({"lr": 0.1, "optimizer": "sgd"}, {"optimizer": {"kind": "sgd", "lr": 0.1}}),
        ({"lr": 0.1, "optimizer": {"kind": "sgd", "lr": 1, "momentum": 0.9}},
         {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}),
        ({"lr": None}, {}),
        ({"patience": 3, "plateau": 2}, {"watch": {"patience": 3, "plateau": {"patience": 2}}}),
        ({"patience": 3, "watch": {"measure": "loss"}}, {"watch": {"measure": "loss", "patience": 3}}),
        ({"plateau": 3, "watch": {"plateau": {"patience": 1, "factor": 0.1}}},
         {"watch": {"plateau": {"patience": 3, "factor": 0.1}}}),
        ({"l2": {"weight": 1e-4}, "clip_norm": 1, "cross_entropy": 0}, {"l2": {"weight": 1e-4}, "clip_norm": 1,
         "cross_entropy": 0}),
    ],
)  # fmt: skip
def test_short_forms_stand_for_their_fields(keywords, plain):
    assert fit_settings(None, keywords, "both") == Settings.model_validate({**plain, "precision": "fp32"})


def test_keywords_are_laid_over_settings():
    base = {"epochs": 3, "optimizer": {"kind": "sgd", "momentum": 0.9}, "watch": {"measure": "loss"}}
    expected = {**base, "epochs": 5, "optimizer": {**base["optimizer"], "lr": 0.1}, "precision": "bf16"}
    for settings in (base, Settings.model_validate(base)):
        laid = fit_settings(settings, {"epochs": 5, "lr": 0.1, "precision": "bf16"}, "both")
        assert laid == Settings.model_validate(expected)


@pytest.mark.parametrize(
    ("trains", "gate", "experts"),
    [
        ("gate", {"lr": 0.1}, {"freeze": True}),
        ("experts", {"lr": 0.1, "freeze": True}, {}),
        ("alternate", {"lr": 0.1, "period": 2, "phase": 0}, {"period": 2, "phase": 1}),
        ("gate_first", {"lr": 0.1}, {"start_epoch": 2.0}),
    ],
)
def test_trains_sets_parts_beside_what_is_set_of_them(trains, gate, experts):
    settings = fit_settings(None, {"epochs": 4, "gate": {"lr": 0.1}}, trains)
    expected = Settings.model_validate({"gate": gate, "experts": experts})
    assert (settings.gate, settings.experts) == (expected.gate, expected.experts)


@pytest.mark.parametrize(
    ("keywords", "message", "fix"),
    [
        ({"epoch": 1}, "epoch: fit has no such keyword, got 1", "did you mean epochs?"),
        ({"epochs": 1.5}, "epochs: needs a whole number, got 1.5", "epochs=20"),
        ({"clip_norm": 0}, "clip_norm: needs a number above 0, got 0", "clip_norm=None"),
        ({"lr": -1}, "lr: needs a number of at least 0, got -1", "lr=1e-3"),
        (
            {"lr": "fast"},
            "lr: needs a number or a schedule, got 'fast'",
            'such as {"kind": "cosine", "start": 1e-3, "end": 0, "epochs": 20}',
        ),
        ({"lr": {"kind": "cosin"}}, "lr.kind: no such kind, got 'cosin'", "did you mean cosine?"),
        ({"patience": 0}, "patience: needs a number of at least 1, got 0", "patience=5"),
        ({"plateau": "x"}, "plateau: needs a whole number, got 'x'", "plateau=5"),
        ({"gate": {"period": 0}}, "gate.period: needs a number of at least 1, got 0", "gate={'lr': None"),
        ({"gate": {"perod": 2}}, "gate.perod: no such key, got 2", "did you mean period?"),
        ({"l2": {"weight": -1}}, "l2.weight: needs a number of at least 0, got -1", "l2=None"),
        ({"views": 2}, "views: is a number of augmented copies, and nothing", 'augment=[{"kind": "flip"}]'),
        ({"losses": 3}, "losses: needs a list, got 3", "losses=["),
        ({"losses": [{"weight": 1}]}, "losses[0].kind: is missing", "losses=["),
        ({"losses": [mb.losses.z_loss] * 2}, "losses[1]: names a gate loss twice", '{"kind": "z_loss"} once'),
        ({"losses": [{"kind": "z_los"}]}, "losses[0].kind: no such kind, got 'z_los'", "did you mean z_loss?"),
        ({"optimizer": {"kind": "sgd", "momentun": 1}}, "optimizer.momentun: sgd has no such", "did you mean mom"),
        ({"watch": 3}, "watch: needs a mapping of keys to values, got 3", "watch=None"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_by_name_with_a_fix_to_paste(keywords, message, fix):
    with pytest.raises(ArgumentError) as error:
        fit_settings(None, keywords, "both")
    assert str(error.value).startswith(message)
    assert (error.value.fix or "").startswith(fix)


def rows():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=random)
    return x, (x[:, 0] > 0).long()


def mixture(router=None):
    torch.manual_seed(0)
    return mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2), nn.Linear(4, 2)], router, mb.LogMixture())


def test_every_field_changes_what_is_trained():
    changes = [
        {},
        {"gate": {"lr": 0.5}},
        {"router": {"temperature": {"kind": "linear", "start": 4.0, "end": 1.0, "epochs": 2}}},
        {"l2": {"weight": 0.1}},
        {"clip_norm": 1e-3, "optimizer": "sgd"},
        {"optimizer": "sgd"},
        {"cross_entropy": 0.5, "optimizer": "sgd"},
    ]
    weights = []
    for change in changes:
        moe = mixture(mb.routers.Soft())
        fitted = fit(moe, rows(), epochs=2, batch_size=40, lr=0.01, settings=change)
        assert ("l2" in fitted.metrics[0]["train"]["terms"]) == ("l2" in change)
        weights.append(torch.cat([value.flatten() for value in moe.state_dict().values()]))
    assert not any(torch.equal(one, other) for place, one in enumerate(weights) for other in weights[:place])


def test_watch_decides_by_held_out_rows_alone():
    with pytest.raises(ArgumentError, match="validation: must hold rows out, for patience, plateau and watch"):
        fit(mixture(), rows(), validation=0.0, watch={"measure": "loss"})
    fitted = fit(mixture(), rows(), epochs=3, lr=0.0, watch={"measure": "loss", "patience": 1})
    assert len(fitted.metrics) == 2
