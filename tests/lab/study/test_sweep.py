"""A sweep as a study: chosen by held-out rows, resumed, grown, with points that diverge, and proposed by Optuna."""

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from moebius.kit.errors import StudyError, TrainingError
from moebius.lab.comparison import compare
from moebius.lab.study import run
from moebius.lab.study.run import plan

SWEEP = (
    "variants={linear: {}, conv: {experts: {kind: mlp, hidden: [4]}}}",
    "data.validation=0.25",
    "sweep.variants=[linear]",
)
RATES = "sweep.keys.training.optimizer.lr=[1e-6, 1e-2]"


@pytest.fixture
def console():
    return Console(file=StringIO(), width=200, color_system=None)


def read(out, name="results.json"):
    return json.loads((out / name).read_text())


def test_held_out_rows_choose_and_the_same_command_goes_on(small_recipe, console, tmp_path):
    out = tmp_path / "study"
    run(small_recipe(*SWEEP, RATES, seeds=2), out, workers=1, console=console)
    results = read(out)
    scores = {}
    for entry in results["runs"]:
        scores.setdefault(entry["variant"], []).append(entry["accuracy"]["validation"])
    points = {name: sum(values) for name, values in scores.items() if "@" in name}
    assert list(points) == ["linear@lr=1e-06", "linear@lr=0.01"]
    assert results["chosen"] == {"linear": max(points, key=points.__getitem__)} == {"linear": "linear@lr=0.01"}
    assert (out / "results.csv").read_text().count("\nlinear,") == 2
    assert "@" not in (out / "results.csv").read_text()
    assert (out / "tables" / "sweep.csv").read_text().count("linear@lr=1e-06") == 2
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/result.json")}
    run(small_recipe(*SWEEP, RATES.replace("]", ", 3e-2]"), seeds=2), out, workers=1, console=console)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(out.glob("linear@*/seed-*/result.json"))) == 6
    comparison = compare(out)
    assert {model.name for model in comparison.models} == {"linear", "conv"}


def test_a_sweep_that_loses_points_is_another_study(small_recipe, console, tmp_path):
    run(small_recipe(*SWEEP, RATES), tmp_path / "study", workers=1, console=console)
    fewer = small_recipe(*SWEEP, RATES.replace("1e-6, ", ""))
    with pytest.raises(StudyError, match=r"sweep\.keys\.training\.optimizer\.lr: \[1e-06, 0\.01\] there"):
        run(fewer, tmp_path / "study", workers=1, console=console)


def test_costs_are_those_of_the_chosen_point(small_recipe, console, tmp_path):
    report = "report={one_expert: {floor: conv, bound: linear}}"
    run(small_recipe(*SWEEP, RATES, report), tmp_path / "study", workers=1, console=console)
    assert set(read(tmp_path / "study")["costs"]) == {"linear", "conv"}


DIVERGING = "sweep.keys.training.optimizer=[{kind: sgd, lr: 1e38}, {kind: adam, lr: 1e-2}]"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_point_that_diverges_is_not_chosen_and_not_tried_again(small_recipe, console, tmp_path, workers):
    out, settings = (
        tmp_path / "study",
        (*SWEEP[1:], SWEEP[0].replace("linear: {}", "linear: {experts: {kind: mlp, hidden: [4]}}")),
    )
    recipe = small_recipe(*settings, DIVERGING)
    run(recipe, out, workers=workers, console=console)
    assert read(out)["chosen"] == {"linear": "linear@optimizer=adam-lr0.01"}
    assert read(out / "linear@optimizer=sgd-lr1e+38" / "seed-0", "error.json")["diverged"] is True
    page = (out / "report.html").read_text()
    assert "<td>diverged</td>" in page
    console.file.truncate(0)
    run(recipe, out, workers=workers, console=console)
    assert "epoch" not in console.file.getvalue()


def test_without_a_point_that_converges_there_is_no_choice(small_recipe, console, tmp_path):
    one = DIVERGING.partition(", {kind: adam")[0] + "]"
    recipe = small_recipe(
        *SWEEP[1:], SWEEP[0].replace("linear: {}", "linear: {experts: {kind: mlp, hidden: [4]}}"), one
    )
    with pytest.raises(TrainingError, match="linear: a loss of each of its 1 points was no finite number"):
        run(recipe, tmp_path / "study", workers=1, console=console)


def test_a_variant_that_is_not_swept_may_not_diverge(small_recipe, console, tmp_path):
    variants = (
        "variants={linear: {}, conv: {experts: {kind: mlp, hidden: [4]}, training: {optimizer: {kind: sgd, lr: 1e38}}}}"
    )
    with pytest.raises(TrainingError, match="conv/seed-0"):
        run(small_recipe(*SWEEP[1:], variants, RATES), tmp_path / "study", workers=1, console=console)


OPTUNA = (
    *SWEEP,
    "sweep.method=optuna",
    "sweep.trials=6",
    "sweep.keys.training.optimizer.lr={low: 1e-5, high: 1e-1, scale: log}",
    "sweep.keys.model.experts.count={low: 1, high: 3}",
)


def test_optuna_proposes_the_same_points_when_interrupted(small_recipe, console, tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="pip install 'moebius[sweep]'")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(small_recipe(*OPTUNA), whole, workers=1, console=console)
    points = read(whole, "study.json")["points"]
    assert len(points) == 6
    assert all(1e-5 <= point["values"]["training.optimizer.lr"] <= 1e-1 for point in points.values())
    assert {point["values"]["model.experts.count"] for point in points.values()} <= {1, 2, 3}

    calls = []

    def stop(*_):
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["moebius.lab.study.run"], "next_points", stop)
        with pytest.raises(KeyboardInterrupt):
            run(small_recipe(*OPTUNA), broken, workers=1, console=console)
    assert len(read(broken, "study.json")["points"]) == 4
    run(small_recipe(*OPTUNA), broken, workers=1, console=console)
    assert read(broken, "study.json")["points"] == points
    assert read(broken)["chosen"] == read(whole)["chosen"]


def test_optuna_cannot_be_planned_ahead(small_recipe, console, tmp_path):
    pytest.importorskip("optuna", reason="pip install 'moebius[sweep]'")
    with pytest.raises(StudyError, match="--plan-only: optuna proposes points from the results of others") as caught:
        plan(small_recipe(*OPTUNA), tmp_path / "study", console=console)
    assert caught.value.fix == "sweep.method=random"
