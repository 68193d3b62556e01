"""Networks trained first and used afterwards: what is kept, what is redone, what is never touched."""

import json
import random
import time
from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import moebius as mb
from moebius.kit.errors import ArgumentError, MoebiusError, TrainingError
from moebius.lab.study import run

QUIET = Console(file=StringIO())


def test_results_have_stages_and_runs_and_variants_share_the_stages(ten_stages, stage_recipe, tmp_path):
    out, values = tmp_path / "study", ten_stages()
    stages = values["stages"]
    run(stage_recipe(values), out, workers=1, console=QUIET)
    results = json.loads((out / "results.json").read_text())
    assert [entry["stage"] for entry in results["stages"]] == list(stages)
    assert [entry["variant"] for entry in results["runs"]] == ["standard", "sparse"]
    assert len(list((out / "stages").iterdir())) == 10
    names = [str(number) for number in range(10)]
    for entry, stage in zip(results["stages"], stages.values(), strict=True):
        assert entry["classes"] == [names[label] for label in stage["classes"]]
        assert entry["groups"] is None
        assert 0 < entry["rows"]["train"] < 120
        assert 0 < entry["accuracy"]["test"] <= 1
    for entry in results["runs"]:
        assert entry["cached"]
        assert entry["gates"]["gate"]["experts"] == 10
        assert [expert["name"] for expert in entry["experts_alone"]] == list(stages)
        pairs = [[names[label] for label in stage["classes"]] for stage in stages.values()]
        assert [expert["classes"] for expert in entry["experts_alone"]] == pairs
        assert all(expert["frozen"] for expert in entry["experts_alone"])
        assert max(expert["accuracy"] for expert in entry["experts_alone"]) <= entry["oracle"] <= 1
    # What the experts say of each split was computed for the first variant, and is there for the second.
    outputs = list((out / "stages").glob("*/seed-0/outputs/*.safetensors"))
    assert len(outputs) == 10 * 3


def test_broken_off_in_the_middle_of_the_third_of_ten(stage_study, changed, ten_stages, stage_recipe, tmp_path):
    first, second, third_name, *_ = ten_stages()["stages"]
    frequent = changed(ten_stages(), ("stages", third_name, "training"), {"checkpoint_seconds": 1e-6})
    uninterrupted, interrupted = (stage_study(stage_recipe(frequent), tmp_path / name) for name in ("whole", "pieces"))
    assert not uninterrupted.run()
    third = f"stage {third_name}/seed-0"
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(lambda run, event: run.name == third and event.step == 3)
    assert interrupted.record.finished == [f"stage {name}/seed-0" for name in (first, second)]
    before = interrupted.stamps([first, second])
    again = stage_study(stage_recipe(frequent), tmp_path / "pieces")
    assert not again.run()
    assert again.record.events[0] == (third, "resumed", 3)
    assert again.record.finished == [run.name for run in uninterrupted.plan.all_runs][2:]
    assert again.stamps([first, second]) == before
    assert again.bits() == uninterrupted.bits()


def test_killed_in_the_third_of_ten(stage_study, changed, ten_stages, stage_recipe, started, tmp_path):
    long = {"epochs": 40, "batch_size": 4, "checkpoint_seconds": 0.05}
    first, second, third_name, *_ = ten_stages()["stages"]
    values = stage_recipe(changed(ten_stages(), ("stages", third_name, "training"), long))
    out, third = tmp_path / "killed", f"stage {third_name}/seed-0"
    stage_study(values, out)  # the command goes on with this plan
    process = started("run", values.reference, "--workers", 1, "--out", out)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and not line.startswith(f"{third} epoch"):
        pass
    assert line
    time.sleep(0.2 * random.Random().random())
    process.kill()
    process.wait()
    killed = stage_study(values, out)
    before = killed.stamps([first, second])
    assert not killed.plan.stages[2].is_finished
    assert not killed.run()
    assert killed.record.events[0][:2] == (third, "resumed")
    assert killed.record.events[0][2] > 0
    assert killed.record.finished[0] == third
    assert killed.stamps([first, second]) == before
    uninterrupted = stage_study(values, tmp_path / "whole")
    assert not uninterrupted.run()
    assert killed.bits() == uninterrupted.bits()
    assert not list(out.rglob("*.tmp*"))


@pytest.mark.parametrize(
    ("path", "value", "redone"),
    [
        (("stages", "a", "training", "epochs"), 3, ["stage a", "stage on-a", "a-b", "tuned", "alone"]),
        (("stages", "a", "classes"), [0, 7], ["stage a", "stage on-a", "a-b", "tuned", "alone"]),
        (("stages", "b", "classes"), [9, 1], ["stage b", "a-b", "tuned", "alone"]),
        (("stages", "on-a", "train_rows"), 100, ["stage on-a", "a-b", "tuned", "alone"]),
        (("model", "gate"), {"kind": "mlp", "hidden": [4]}, ["a-b", "tuned", "alone"]),
        (("training", "checkpoint_seconds"), 9.0, ["a-b", "tuned", "alone"]),
        (("pretraining", "training", "remember"), False, ["a-b", "tuned", "alone"]),
    ],
)
def test_a_changed_stage_is_redone_with_what_uses_it_and_nothing_else(
    stage_study, few_stages, changed, path, value, redone, stage_recipe, tmp_path
):
    first = stage_study(stage_recipe(few_stages()), tmp_path / "first")
    assert not first.run()
    before = {name: first.stamps([name])[name] for name in ("a", "b", "on-a")}
    second = stage_study(
        stage_recipe(changed(few_stages(), path, value)), tmp_path / "second", stages_dir=tmp_path / "first" / "stages"
    )
    assert not second.run()
    # The second study's own folder has no variants yet; of the stages just those that differ are trained.
    assert second.record.finished == [f"{name}/seed-0" for name in redone]
    for name in ("a", "b", "on-a"):
        same = first.folder(name) == second.folder(name)
        assert same == (f"stage {name}" not in redone)
        assert first.stamps([name])[name] == before[name]
    assert not (tmp_path / "second" / "stages").exists()


def test_the_same_folder_goes_on_where_only_a_variant_is_added(
    stage_study, few_stages, changed, stage_recipe, tmp_path
):
    out = tmp_path / "study"
    first = stage_study(stage_recipe(few_stages()), out)
    assert not first.run()
    added = changed(
        few_stages(), ("variants", "more"), {"experts": [{"kind": "stage", "stage": "a"}, {"kind": "linear"}]}
    )
    second = stage_study(stage_recipe(added), out)
    assert not second.run()
    assert second.record.finished == ["more/seed-0"]
    with pytest.raises(MoebiusError, match="holds another study") as error:
        stage_study(stage_recipe(changed(few_stages(), ("stages", "a", "classes"), [0, 7])), out)
    assert "stages.a.classes" in error.value.message
    assert f"--stages {out / 'stages'}" in (error.value.fix or "")


def test_a_stage_begins_from_the_stage_that_it_is_built_on(stage_study, few_stages, changed, stage_recipe, tmp_path):
    still = changed(few_stages(), ("stages", "on-a", "training"), {"optimizer": {"kind": "sgd", "lr": 0.0}})
    study = stage_study(stage_recipe(still), tmp_path)
    assert not study.run()
    before = load_file(study.folder("a") / "model.safetensors")
    after = load_file(study.folder("on-a") / "model.safetensors")
    assert torch.equal(after["experts.0.network.linear.weight"], before["experts.0.linear.weight"])
    moving = stage_study(stage_recipe(few_stages()), tmp_path / "moving")
    assert not moving.run()
    after = load_file(moving.folder("on-a") / "model.safetensors")
    assert not torch.equal(after["experts.0.network.linear.weight"], before["experts.0.linear.weight"])


def test_equal_networks_begin_unlike(stage_study, few_stages, stage_recipe, tmp_path):
    still = {"network": {"kind": "linear"}, "training": {"optimizer": {"kind": "sgd", "lr": 0.0}, "epochs": 1}}
    stages = {"a": {}, "b": {}}
    variants = {"both": {"experts": [{"kind": "stage", "stage": name} for name in stages]}}
    study = stage_study(stage_recipe(few_stages(stages=stages, variants=variants, pretraining=still)), tmp_path)
    assert not study.run()
    weights_a, weights_b = (load_file(study.folder(name) / "model.safetensors") for name in stages)
    assert not torch.equal(weights_a["experts.0.linear.weight"], weights_b["experts.0.linear.weight"])


FAILING = ("stages", "a", "training")
DIVERGES = {"optimizer": {"kind": "sgd", "lr": 1e30}, "epochs": 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_that_fails_costs_what_uses_it_and_nothing_else(
    stage_study, few_stages, changed, workers, stage_recipe, tmp_path
):
    broken = changed(
        changed(few_stages(), FAILING, DIVERGES), ("pretraining", "network"), {"kind": "mlp", "hidden": [4]}
    )
    study = stage_study(stage_recipe(broken), tmp_path, workers)
    failures = study.run()
    assert sorted(failures) == ["a-b/seed-0", "stage a/seed-0", "stage on-a/seed-0", "tuned/seed-0"]
    assert "is not a finite number" in failures.pop("stage a/seed-0")
    assert failures.pop("tuned/seed-0") in {f"not begun: stage {name}/seed-0 failed" for name in ("a", "on-a")}
    assert set(failures.values()) == {"not begun: stage a/seed-0 failed"}
    assert sorted(study.record.finished) == ["alone/seed-0", "stage b/seed-0"]
    assert study.plan.runs[2].is_finished


def test_a_failed_stage_is_said_in_lines_that_name_it(few_stages, changed, stage_recipe, tmp_path):
    broken = changed(
        changed(few_stages(), FAILING, DIVERGES), ("pretraining", "network"), {"kind": "mlp", "hidden": [4]}
    )
    with pytest.raises(TrainingError) as error:
        run(stage_recipe(broken), tmp_path, workers=1, console=QUIET)
    first, *others = error.value.message.splitlines()
    assert first.startswith("stage a/seed-0: epoch 1, step ")
    assert [line.split(":")[0] for line in others] == ["stage on-a/seed-0", "a-b/seed-0", "tuned/seed-0"]
    assert all(": not begun: stage " in line and line.endswith("/seed-0 failed") for line in others)
    assert not (tmp_path / "results.json").exists()


def test_two_workers_begin_nothing_before_what_it_needs_and_give_the_same_bits(
    stage_study, few_stages, stage_recipe, tmp_path
):
    alone, side_by_side = (
        stage_study(stage_recipe(few_stages()), tmp_path / "one"),
        stage_study(stage_recipe(few_stages()), tmp_path / "two", workers=2),
    )
    assert not alone.run()
    assert not side_by_side.run()
    needs = {
        "stage on-a": ["stage a"],
        "a-b": ["stage a", "stage b"],
        "tuned": ["stage a", "stage on-a", "stage b"],
        "alone": ["stage b"],
    }
    assert sorted(side_by_side.record.finished) == sorted(alone.record.finished)
    for name, others in needs.items():
        first = next(
            place for place, (run_name, _, _) in enumerate(side_by_side.record.events) if run_name == f"{name}/seed-0"
        )
        for other in others:
            assert side_by_side.record.events.index((f"{other}/seed-0", "finished", 0)) < first
    assert alone.bits() == side_by_side.bits()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("stages", "a", "classes"),
            ["0", "eigth"],
            r"stages\.a\.classes: must be names or positions of classes, got 'eigth'",
        ),
        (("stages", "a", "classes"), [0, 10], r"stages\.a\.classes: must be positions 0 … 9, got 10"),
        (
            ("stages", "b", "domains"),
            ["mnist"],
            r"stages\.b\.domains: must be names or positions of domains, got 'mnist'",
        ),
        (
            ("stages", "b", "train_rows"),
            999,
            r"stages\.b\.train_rows: must be 1 … \d+, the number of selected training rows, got 999",
        ),
    ],
)
def test_rows_that_are_not_there_are_one_error_before_anything_is_written(
    few_stages, changed, path, value, message, stage_recipe, tmp_path
):
    out = tmp_path / "study"
    with pytest.raises(ArgumentError, match=message):
        run(stage_recipe(changed(few_stages(), path, value)), out, workers=1, console=QUIET)
    assert not out.exists()


def test_a_stage_with_outputs_of_its_own_counts_the_classes_of_a_smaller_one_among_them(
    stage_study, few_stages, stage_recipe, tmp_path
):
    values = few_stages()
    network = {"kind": "stage", "stage": "b", "frozen": False, "fill": -10.0}
    stages = {"b": values["stages"]["b"], "on-b": {"classes": [1, 8, 9], "outputs": "own", "network": network}}
    variants = {"alone": {"experts": [{"kind": "stage", "stage": "on-b", "activation": "softmax"}]}}
    study = stage_study(stage_recipe({**values, "stages": stages, "variants": variants}), tmp_path)
    assert not study.run()
    trained = mb.load(study.folder("on-b"))
    assert trained.experts[0].classes == (0, 2)  # 1 and 9 of 1, 8 and 9
