"""Networks trained first and used afterwards: what is kept, what is redone, what is never touched."""

import json
import random
import shutil
import time
from io import StringIO

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from moebius.kit.errors import ArgumentError, MoebiusError, TrainingError
from moebius.lab.predict import load_run, predict
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.text import write_yaml
from moebius.lab.study import run
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run import LoadData
from moebius.lab.study.train_run import result_path
from moebius.lab.study.workers import run_all

PAIRS = [(0, 8), (1, 9), (2, 6), (3, 5), (4, 7), (0, 9), (1, 8), (2, 7), (3, 6), (4, 5)]
NAMES = [f"pair-{first}-{second}" for first, second in PAIRS]
VGG = {"kind": "vgg", "filters": [[2]], "dropout": 0.3, "hidden": [4]}
BITS = ("model.safetensors", "metrics.jsonl")
QUIET = Console(file=StringIO())


def plain(**changes):
    """The recipe of ten experts, a mixture of them and another gate, with some of its keys changed."""
    experts = [{"kind": "stage", "stage": name} for name in NAMES]
    return {
        "name": "ten",
        "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 300, "test_rows": 100, "validation_rows": 60},
        "training": {"epochs": 2, "batch_size": 50, "optimizer": {"kind": "adam", "lr": 1e-2}},
        "pretraining": {"network": {"kind": "linear"}, "training": {"batch_size": 20}},
        "stages": {name: {"classes": list(pair)} for name, pair in zip(NAMES, PAIRS, strict=True)},
        "model": {
            "gate": {"kind": "linear"},
            "experts": experts,
            "combine": {"kind": "weighted_sum"},
        },
        "variants": {"standard": {}, "sparse": {"router": {"kind": "top_k", "k": 2}}},
        **changes,
    }


def few(**changes):
    """Three stages, one of them built on another, and three variants."""

    def used(*names):
        # Probabilities: a logit of −∞ for a class that no expert of a variant knows would leave its rows without any.
        return [{"kind": "stage", "stage": name, "activation": "softmax"} for name in names]

    stages = {
        "a": {"classes": [0, 8]},
        "b": {"classes": [1, 9], "outputs": "own"},
        "on-a": {"network": {"kind": "stage", "stage": "a", "frozen": False}},
    }
    variants = {
        "a-b": {"experts": used("a", "b")},
        "tuned": {"experts": used("on-a", "b")},
        "alone": {"experts": used("b")},
    }
    return plain(**{"name": "few", "stages": stages, "variants": variants, **changes})


class Study:
    """A plan and its folder."""

    def __init__(self, recipe, out, workers=1, stages_dir=None):
        self.load = LoadData(recipe.data.model_dump(mode="json"), None)
        self.data, self.out = self.load(), out
        plan = make_plan(recipe, self.data, "cpu", workers, out, stages_dir)
        self.plan = Plan(**{**vars(plan), "threads": 1})
        self.events, self.trained = [], []

    def run(self, stop=lambda run, event: False):
        """Train what is not finished; breaks off where `stop` says so."""

        def listen(run, event):
            self.events.append((run.name, event.kind, event.step))
            if stop(run, event):
                raise KeyboardInterrupt

        todo = [run for run in self.plan.all_runs if not result_path(self.out, run).exists()]
        finished = lambda run: (self.trained.append(run.name), self.events.append((run.name, "finished", 0)))  # noqa: E731
        return run_all(self.plan, todo, self.out, self.load, self.data, listen, finished)

    def folder(self, name):
        """The folder of the stage or the variant."""
        return next(run.place(self.out) for run in self.plan.all_runs if run.variant == name)

    def bits(self):
        return {
            (run.name, file): (run.place(self.out) / file).read_bytes() for run in self.plan.all_runs for file in BITS
        }


def changed(values, path, value):
    values = json.loads(json.dumps(values))
    place = values
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return values


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """One thread for the products of these small models; more would wait for each other."""
    monkeypatch.setattr("moebius.lab.study.plan.count_cores", lambda: 1)


@pytest.fixture
def recipe(tmp_path):
    def loaded(values, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(write_yaml(values), encoding="utf-8")
        return load_recipe(str(path), overrides)

    return loaded


def stamps(study, names):
    return {name: (study.folder(name) / "model.safetensors").stat().st_mtime_ns for name in names}


def test_results_have_stages_and_runs_and_variants_share_the_stages(recipe, tmp_path):
    out = tmp_path / "study"
    run(recipe(plain()), out, workers=1, console=QUIET)
    results = json.loads((out / "results.json").read_text())
    assert [entry["stage"] for entry in results["stages"]] == NAMES
    assert [entry["variant"] for entry in results["runs"]] == ["standard", "sparse"]
    assert len(list((out / "stages").iterdir())) == 10
    names = [str(number) for number in range(10)]
    for entry, pair in zip(results["stages"], PAIRS, strict=True):
        assert entry["classes"] == [names[label] for label in pair]
        assert entry["groups"] is None
        assert 0 < entry["rows"]["train"] < 120
        assert 0 < entry["accuracy"]["test"] <= 1
    for entry in results["runs"]:
        assert entry["cached"]
        assert entry["experts"] == 10
        assert [expert["name"] for expert in entry["experts_alone"]] == NAMES
        assert [expert["classes"] for expert in entry["experts_alone"]] == [[names[i] for i in pair] for pair in PAIRS]
        assert all(expert["frozen"] for expert in entry["experts_alone"])
        assert max(expert["accuracy"] for expert in entry["experts_alone"]) <= entry["oracle"] <= 1
    # What the experts say of each split was computed for the first variant, and is there for the second.
    outputs = list((out / "stages").glob("*/seed-0/outputs/*.safetensors"))
    assert len(outputs) == 10 * 3


def test_broken_off_in_the_middle_of_the_third_of_ten(recipe, tmp_path):
    frequent = changed(plain(), ("stages", NAMES[2], "training"), {"checkpoint_seconds": 1e-6})
    uninterrupted, interrupted = (Study(recipe(frequent), tmp_path / name) for name in ("whole", "pieces"))
    assert not uninterrupted.run()
    third = f"stage {NAMES[2]}/seed-0"
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(lambda run, event: run.name == third and event.step == 3)
    assert interrupted.trained == [f"stage {name}/seed-0" for name in NAMES[:2]]
    before = stamps(interrupted, NAMES[:2])
    again = Study(recipe(frequent), tmp_path / "pieces")
    assert not again.run()
    assert again.events[0] == (third, "resumed", 3)
    assert again.trained == [run.name for run in uninterrupted.plan.all_runs][2:]
    assert stamps(again, NAMES[:2]) == before
    assert again.bits() == uninterrupted.bits()


TRAIN = """
import sys
from pathlib import Path
from moebius.lab.recipe.load import load_recipe
from moebius.lab.study.train_run import result_path
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run import LoadData
from moebius.lab.study.workers import run_all

recipe, out = load_recipe(sys.argv[1]), Path(sys.argv[2])
load = LoadData(recipe.data.model_dump(mode="json"), None)
data = load()
plan = Plan(**{**vars(make_plan(recipe, data, "cpu", 1, out)), "threads": 1})
todo = [run for run in plan.all_runs if not result_path(out, run).exists()]
run_all(plan, todo, out, load, data, lambda run, event: print(run.name, event.kind, flush=True), lambda run: None)
"""


def test_killed_in_the_third_of_ten(recipe, started, tmp_path):
    long = {"epochs": 40, "batch_size": 4, "checkpoint_seconds": 0.05}
    values = recipe(changed(plain(), ("stages", NAMES[2], "training"), long))
    out, third = tmp_path / "killed", f"stage {NAMES[2]}/seed-0"
    process = started(values.reference, out, code=TRAIN)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and not line.startswith(f"{third} step"):
        pass
    assert line
    time.sleep(0.2 * random.Random().random())
    process.kill()
    process.wait()
    killed = Study(values, out)
    before = stamps(killed, NAMES[:2])
    assert not result_path(out, killed.plan.stages[2]).exists()
    assert not killed.run()
    assert killed.events[0][:2] == (third, "resumed")
    assert killed.events[0][2] > 0
    assert killed.trained[0] == third
    assert stamps(killed, NAMES[:2]) == before
    uninterrupted = Study(values, tmp_path / "whole")
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
def test_a_changed_stage_is_redone_with_what_uses_it_and_nothing_else(path, value, redone, recipe, tmp_path):
    first = Study(recipe(few()), tmp_path / "first")
    assert not first.run()
    before = {name: stamps(first, [name])[name] for name in ("a", "b", "on-a")}
    second = Study(recipe(changed(few(), path, value)), tmp_path / "second", stages_dir=tmp_path / "first" / "stages")
    assert not second.run()
    # The second study's own folder has no variants yet; of the stages just those that differ are trained.
    assert second.trained == [f"{name}/seed-0" for name in redone]
    for name in ("a", "b", "on-a"):
        same = first.folder(name) == second.folder(name)
        assert same == (f"stage {name}" not in redone)
        assert stamps(first, [name])[name] == before[name]
    assert not (tmp_path / "second" / "stages").exists()


def test_the_same_folder_goes_on_where_only_a_variant_is_added(recipe, tmp_path):
    out = tmp_path / "study"
    first = Study(recipe(few()), out)
    assert not first.run()
    added = changed(few(), ("variants", "more"), {"experts": [{"kind": "stage", "stage": "a"}, {"kind": "linear"}]})
    second = Study(recipe(added), out)
    assert not second.run()
    assert second.trained == ["more/seed-0"]
    with pytest.raises(MoebiusError, match="holds another study") as error:
        Study(recipe(changed(few(), ("stages", "a", "classes"), [0, 7])), out)
    assert "stages.a.classes" in error.value.message
    assert f"--stages {out / 'stages'}" in (error.value.fix or "")


def test_a_stage_begins_from_the_stage_that_it_is_built_on(recipe, tmp_path):
    still = changed(few(), ("stages", "on-a", "training"), {"optimizer": {"kind": "sgd", "lr": 0.0}})
    study = Study(recipe(still), tmp_path)
    assert not study.run()
    before = load_file(study.folder("a") / "model.safetensors")
    after = load_file(study.folder("on-a") / "model.safetensors")
    assert torch.equal(after["experts.0.network.linear.weight"], before["experts.0.linear.weight"])
    moving = Study(recipe(few()), tmp_path / "moving")
    assert not moving.run()
    after = load_file(moving.folder("on-a") / "model.safetensors")
    assert not torch.equal(after["experts.0.network.linear.weight"], before["experts.0.linear.weight"])


def test_equal_networks_begin_unlike(recipe, tmp_path):
    still = {"network": {"kind": "linear"}, "training": {"optimizer": {"kind": "sgd", "lr": 0.0}, "epochs": 1}}
    stages = {"a": {}, "b": {}}
    variants = {"both": {"experts": [{"kind": "stage", "stage": name} for name in stages]}}
    study = Study(recipe(plain(stages=stages, variants=variants, pretraining=still)), tmp_path)
    assert not study.run()
    weights_a, weights_b = (load_file(study.folder(name) / "model.safetensors") for name in stages)
    assert not torch.equal(weights_a["experts.0.linear.weight"], weights_b["experts.0.linear.weight"])


FAILING = ("stages", "a", "training")
DIVERGES = {"optimizer": {"kind": "sgd", "lr": 1e30}, "epochs": 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_that_fails_costs_what_uses_it_and_nothing_else(workers, recipe, tmp_path):
    broken = changed(changed(few(), FAILING, DIVERGES), ("pretraining", "network"), {"kind": "mlp", "hidden": [4]})
    study = Study(recipe(broken), tmp_path, workers)
    failures = {failure.run.name: failure.error.message for failure in study.run()}
    assert list(failures) == ["stage a/seed-0", "stage on-a/seed-0", "a-b/seed-0", "tuned/seed-0"]
    assert "is not a finite number" in failures.pop("stage a/seed-0")
    assert failures.pop("tuned/seed-0") in {f"not begun: stage {name}/seed-0 failed" for name in ("a", "on-a")}
    assert set(failures.values()) == {"not begun: stage a/seed-0 failed"}
    assert sorted(study.trained) == ["alone/seed-0", "stage b/seed-0"]
    assert result_path(tmp_path, study.plan.runs[2]).exists()


def test_a_failed_stage_is_said_in_lines_that_name_it(recipe, tmp_path):
    broken = changed(changed(few(), FAILING, DIVERGES), ("pretraining", "network"), {"kind": "mlp", "hidden": [4]})
    with pytest.raises(TrainingError) as error:
        run(recipe(broken), tmp_path, workers=1, console=QUIET)
    first, *others = error.value.message.splitlines()
    assert first.startswith("stage a/seed-0: epoch 1, step ")
    assert [line.split(":")[0] for line in others] == ["stage on-a/seed-0", "a-b/seed-0", "tuned/seed-0"]
    assert all(": not begun: stage " in line and line.endswith("/seed-0 failed") for line in others)
    assert not (tmp_path / "results.json").exists()


def test_two_workers_begin_nothing_before_what_it_needs_and_give_the_same_bits(recipe, tmp_path):
    alone, side_by_side = Study(recipe(few()), tmp_path / "one"), Study(recipe(few()), tmp_path / "two", workers=2)
    assert not alone.run()
    assert not side_by_side.run()
    needs = {
        "stage on-a": ["stage a"],
        "a-b": ["stage a", "stage b"],
        "tuned": ["stage a", "stage on-a", "stage b"],
        "alone": ["stage b"],
    }
    assert sorted(side_by_side.trained) == sorted(alone.trained)
    for name, others in needs.items():
        first = next(
            place for place, (run_name, _, _) in enumerate(side_by_side.events) if run_name == f"{name}/seed-0"
        )
        for other in others:
            assert side_by_side.events.index((f"{other}/seed-0", "finished", 0)) < first
    assert alone.bits() == side_by_side.bits()


def frozen_network(**changes):
    """Experts with batch normalisation and dropout, which would show a change of mode."""
    return few(pretraining={"network": VGG}, **changes)


def test_frozen_parameters_and_statistics_do_not_change_by_a_bit(recipe, tmp_path):
    decay = {"epochs": 2, "batch_size": 50, "optimizer": {"kind": "adamw", "lr": 0.05, "weight_decay": 0.1}}
    values = frozen_network(training={**decay, "augment": [{"kind": "flip"}], "l2": {"weight": 0.01}})
    study = Study(recipe(values), tmp_path)
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


def test_a_variant_predicts_from_its_own_folder_when_the_stages_are_gone(recipe, tmp_path):
    study = Study(recipe(frozen_network()), tmp_path / "study")
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


def test_a_stage_that_is_used_twice_is_one_module_and_stored_once(recipe, tmp_path):
    shared = {"tree": {"experts": [branch(TWICE, {"kind": "linear"}), branch(TWICE, {"kind": "linear"})]}}
    study = Study(recipe(few(stages={"a": {"classes": [0, 8]}}, variants=shared)), tmp_path)
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
def test_parts_that_look_alike_are_remembered_apart(options, recipe, tmp_path):
    """Two uses of one stage that differ in their options are two parts, and each has its own outputs on the disk."""
    pair = {"model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}}
    stages = {"a": {"classes": [0, 8], "outputs": "own"}} if "fill" in options[0] else {"a": pair}
    values = few(stages=stages, variants={"both": {"experts": [{**TWICE, **option} for option in options]}})
    remembered = Study(recipe(values), tmp_path / "remembered")
    computed = Study(recipe(changed(values, ("training", "remember"), False)), tmp_path / "computed")
    assert not remembered.run()
    assert not computed.run()
    outputs = list(remembered.folder("a").glob("outputs/*.safetensors"))
    assert len(outputs) == 2 * 3
    cached, recomputed = (
        json.loads((study.folder("both") / "result.json").read_text()) for study in (remembered, computed)
    )
    assert cached["loss"]["test"] == pytest.approx(recomputed["loss"]["test"], rel=1e-4)
    assert cached["accuracy"] == recomputed["accuracy"]


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
        (("stages", "b", "train_rows"), 999, r"stages\.b\.train_rows: must be 1 … \d+, the rows there are, got 999"),
    ],
)
def test_rows_that_are_not_there_are_one_error_before_anything_is_written(path, value, message, recipe, tmp_path):
    out = tmp_path / "study"
    with pytest.raises(ArgumentError, match=message):
        run(recipe(changed(few(), path, value)), out, workers=1, console=QUIET)
    assert not out.exists()
