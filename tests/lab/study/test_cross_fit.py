"""`rows: {cross_fit: K}`: what learns on stages gets, for each row, outputs of stages that were not trained on it."""

import json

import pytest
import torch

import moebius as mb
from moebius.kit.errors import RecipeError
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.folds import fold_of_rows

K = 3


@pytest.fixture
def crossed(few_stages):
    """A mixture of a stage of two classes and one that is built on it, and a stack that is a stage, cross-fitted."""
    stages = {
        "a": {"classes": [0, 8]},
        "on-a": {"network": {"kind": "stage", "stage": "a", "frozen": False}},
        "stacked": {
            "model": {
                "gate": {"kind": "linear"},
                "experts": [{"kind": "stage", "stage": "a", "activation": "softmax"}],
            },
            "rows": {"cross_fit": K},
            "classes": [0, 8],
        },
    }
    experts = [{"kind": "stage", "stage": name, "activation": "softmax"} for name in ("a", "on-a")]
    still = {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.0}}
    variants = {
        "crossed": {"experts": experts, "rows": {"cross_fit": K}, "training": still},
        "plain": {"experts": experts, "training": still},
        "of-stack": {"experts": {"kind": "stage", "stage": "stacked"}},
    }
    return few_stages(stages=stages, variants=variants)


def outputs(folder, x):
    return mb.load(folder)(x).detach()


def test_the_outputs_are_those_of_stages_trained_without_the_row(stage_study, crossed, stage_recipe, tmp_path):
    study = stage_study(stage_recipe(crossed), tmp_path)
    assert not study.run()
    train, out = study.data.train, study.out
    (batch,) = ordered_batches(train, len(train))
    folds = fold_of_rows(len(train), K)
    seed = out / "crossed" / "seed-0"
    gate = torch.softmax(mb.load(seed).gate(batch.x), -1).detach()
    expected = torch.zeros(len(train), 10)
    for fold in range(K):
        rows = folds == fold
        names = [f"{name}.fold-{fold + 1}-of-{K}" for name in ("a", "on-a")]
        by_stage = [outputs(study.folder(name), batch.x[rows]).softmax(-1) for name in names]
        expected[rows] = sum(gate[rows, n, None] * each for n, each in enumerate(by_stage))
        assert json.loads((study.folder(names[1]) / "result.json").read_text())["rows"]["train"] < len(train)
    loss = torch.nn.functional.cross_entropy(expected, batch.labels).item()
    metrics = {name: json.loads((out / name / "seed-0" / "metrics.jsonl").read_text()) for name in ("crossed", "plain")}
    assert metrics["crossed"]["train"]["loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["plain"]["train"]["loss"] != pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("variants", "crossed", "rows"), {"cross_fit": 1}, "needs a whole number of folds, at least 2"),
        (("variants", "crossed", "rows"), {"cross_fit": True}, "needs a whole number of folds"),
        (("variants", "crossed", "rows"), {"folds": 5}, "needs train, held_out, or cross_fit"),
        (("stages", "stacked", "rows"), "half", "needs train, held_out, or cross_fit"),
        (("variants", "crossed", "experts"), {"kind": "linear", "count": 2}, "is for models that use stages"),
        (("variants", "of-stack", "rows"), {"cross_fit": 5}, "cannot use stage stacked, which is cross-fitted itself"),
        (("variants", "crossed", "training"), {"remember": False}, "needs outputs that are computed once"),
        (("variants", "crossed", "training"), {"augment": [{"kind": "flip"}]}, "training.augment draws them anew"),
        (
            ("variants", "crossed", "experts"),
            [{"kind": "stage", "stage": "a", "frozen": False}, {"kind": "stage", "stage": "on-a"}],
            "needs frozen stages that get the data's rows, and a is none here",
        ),
    ],
)
def test_what_cannot_be_cross_fitted_is_refused(crossed, changed, stage_recipe, path, value, text):
    with pytest.raises(RecipeError) as error:
        stage_recipe(changed(crossed, path, value))
    assert text in str(error.value)
