"""Models of trained networks: frozen parts keep their bits, and a network that is used twice is one."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moebius.lab.predict import load_run, predict

VGG = {"kind": "vgg", "filters": [[2]], "dropout": 0.3, "hidden": [4]}


def test_frozen_parameters_and_statistics_do_not_change_by_a_bit(few_stages, stage_study, stage_recipe, tmp_path):
    decay = {"epochs": 2, "batch_size": 50, "optimizer": {"kind": "adamw", "lr": 0.05, "weight_decay": 0.1}}
    values = few_stages(
        pretraining={"network": VGG}, training={**decay, "augment": [{"kind": "flip"}], "l2": {"weight": 0.01}}
    )
    study = stage_study(stage_recipe(values), tmp_path)
    assert not study.run()
    for variant, places in {"a-b": {0: "a", 1: "b"}, "tuned": {0: "on-a", 1: "b"}}.items():
        after = load_file(study.folder(variant) / "model.safetensors")
        for place, stage in places.items():
            before = load_file(study.folder(stage) / "model.safetensors")
            mine = {
                name.removeprefix(f"experts.{place}.network."): v
                for name, v in after.items()
                if name.startswith(f"experts.{place}.")
            }
            theirs = {name.removeprefix("experts.0."): v for name, v in before.items() if name.startswith("experts.0.")}
            assert any("running_var" in name for name in mine)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    # The stage that tunes another one changes its statistics too, and leaves the other as it was.
    before, tuned = (load_file(study.folder(name) / "model.safetensors") for name in ("a", "on-a"))
    (statistics,) = (name for name in before if name.endswith("running_mean"))
    assert not torch.equal(before[statistics], tuned[statistics.replace("experts.0.", "experts.0.network.")])


def test_a_variant_predicts_from_its_folder_when_the_stages_are_gone(few_stages, stage_study, stage_recipe, tmp_path):
    study = stage_study(stage_recipe(few_stages(pretraining={"network": VGG})), tmp_path / "study")
    assert not study.run()
    paths = [tmp_path / f"{row}.png" for row in range(5)]
    for path, pixels in zip(paths, study.data.test.images[:5, 0].numpy(), strict=True):
        Image.fromarray(pixels).save(path)
    before = {name: predict(study.folder(name), paths) for name in ("a-b", "tuned", "alone")}
    shutil.rmtree(tmp_path / "study" / "stages")
    shutil.move(tmp_path / "study", tmp_path / "elsewhere")
    for name, expected in before.items():
        assert predict(tmp_path / "elsewhere" / name / "seed-0", paths) == expected
    model, _ = load_run(tmp_path / "elsewhere" / "a-b" / "seed-0")
    assert model.experts[0].frozen
    assert model.experts[0].classes == (0, 8)
    output = model(torch.rand(3, 1, 8, 8))
    assert output.shape == (3, 10)


TWICE = {"kind": "stage", "stage": "a"}


def branch(*experts):
    return {"kind": "mixture", "gate": {"kind": "linear"}, "experts": list(experts)}


def test_a_stage_that_is_used_twice_is_one_module_and_stored_once(stage_study, few_stages, stage_recipe, tmp_path):
    shared = {"tree": {"experts": [branch(TWICE, {"kind": "linear"}), branch(TWICE, {"kind": "linear"})]}}
    study = stage_study(stage_recipe(few_stages(stages={"a": {"classes": [0, 8]}}, variants=shared)), tmp_path)
    assert not study.run()
    folder = study.folder("tree")
    names = [name for name in load_file(folder / "model.safetensors") if ".network." in name]
    assert names == ["experts.0.experts.0.network.linear.bias", "experts.0.experts.0.network.linear.weight"]
    model, _ = load_run(folder)
    assert model.experts[0].experts[0] is model.experts[1].experts[0]
    entry = json.loads((folder / "result.json").read_text())
    assert entry["experts_alone"][0]["paths"] == ["experts.0.experts.0", "experts.1.experts.0"]
    with torch.no_grad():
        output = model(study.data.test.images.float() / 255)
    labels = study.data.test.labels
    assert (output.argmax(1) == labels).double().mean().item() == pytest.approx(entry["accuracy"]["test"])


@pytest.mark.parametrize("options", [({"fill": -3.0}, {"fill": -9.0}), ({"part": "experts.0"}, {"part": "experts.1"})])
def test_parts_that_look_alike_are_remembered_apart(stage_study, few_stages, changed, options, stage_recipe, tmp_path):
    """Two uses of one stage that differ in their options are two parts, and each has its own outputs on the disk."""
    pair = {"model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}}
    stages = {"a": {"classes": [0, 8], "outputs": "own"}} if "fill" in options[0] else {"a": pair}
    values = few_stages(stages=stages, variants={"both": {"experts": [{**TWICE, **option} for option in options]}})
    remembered = stage_study(stage_recipe(values), tmp_path / "remembered")
    computed = stage_study(stage_recipe(changed(values, ("training", "remember"), False)), tmp_path / "computed")
    assert not remembered.run()
    assert not computed.run()
    outputs = list(remembered.folder("a").glob("outputs/*.safetensors"))
    assert len(outputs) == 2 * 3
    cached, recomputed = (
        json.loads((study.folder("both") / "result.json").read_text()) for study in (remembered, computed)
    )
    assert cached["loss"]["test"] == pytest.approx(recomputed["loss"]["test"], rel=1e-4)
    assert cached["accuracy"] == recomputed["accuracy"]


def test_a_stage_that_can_say_none_of_mine_routes_by_it(stage_study, few_stages, stage_recipe, tmp_path):
    modest = {"outputs": "own+other", "others": "all", "training": {"epochs": 3}}
    most = [1, 2, 3, 4, 5, 6, 7, 9]
    stages = {
        "base": {},
        "a": {"classes": [0, 8], **modest},
        "b": {"classes": most, **modest, "network": {"kind": "stage", "stage": "base", "frozen": False}},
    }
    experts = [{"kind": "stage", "stage": "a"}, {"kind": "stage", "stage": "b"}]
    generalist = {"kind": "class_mass", "network": {"kind": "stage", "stage": "base"}}
    mixed = {"experts": experts, "combine": {"kind": "log_mixture"}}
    stack = {"gate": {"kind": "uniform"}, "combine": {"kind": "linear_stack"}, "rows": "held_out"}
    variants = {
        "uniform": {"gate": {"kind": "uniform"}, **mixed},
        "own-mass": {"gate": {"kind": "own_mass"}, **mixed},
        "class-mass": {"gate": generalist, **mixed},
        "stack": {**mixed, **stack},
        "output-linear": {"gate": {"kind": "output_linear"}, **mixed, "rows": "held_out"},
        "constants": {"gate": {"kind": "constant"}, "router": {"kind": "per_class"}, **mixed},
    }
    values = few_stages(stages=stages, variants=variants)
    values["data"] = {**values["data"], "validation_rows": 100}
    study = stage_study(stage_recipe(values), tmp_path)
    assert not study.run()
    scores = {name: json.loads((study.folder(name) / "result.json").read_text()) for name in variants}
    model, _ = load_run(study.folder("own-mass"))
    assert model.gate.expert_classes == ((0, 8), tuple(most))
    assert [expert.others for expert in model.experts] == [True, True]
    x = study.data.test.images.float() / 255
    probs = torch.stack([expert(x) for expert in model.experts], 1).softmax(-1)
    assert torch.allclose(probs[:, 0, 1], probs[:, 0, 2])
    masses = torch.stack([probs[:, 0, [0, 8]].sum(-1), probs[:, 1, most].sum(-1)], 1)
    expected = (masses / masses.sum(1, keepdim=True)).unsqueeze(-1).mul(probs).sum(1)
    assert torch.allclose(model(x).exp(), expected, atol=1e-5)
    routed, _ = load_run(study.folder("class-mass"))
    assert routed.gate.expert_classes == model.gate.expert_classes
    stacked, _ = load_run(study.folder("stack"))
    assert stacked.combine.bias.count_nonzero()
    assert all(scores[name]["epochs"] for name in ("stack", "output-linear", "constants"))
