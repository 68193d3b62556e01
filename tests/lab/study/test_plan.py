import json

import pytest
import torch

from moebius.kit.errors import StudyError
from moebius.kit.files import read_json, write_json
from moebius.lab.study.plan import make_plan


def test_runs_go_seed_by_seed(planned, tmp_path):
    plan = planned(tmp_path, seeds=2).plan
    assert [run.name for run in plan.runs] == ["linear/seed-0", "conv/seed-0", "linear/seed-1", "conv/seed-1"]
    assert plan.runs[0].training["precision"] == "fp32"
    assert "multiply-adds" in plan.runs[0].precision_reason or "bf16" in plan.runs[0].precision_reason


def test_study_json_says_what_is_run(planned, tmp_path):
    study = planned(tmp_path)
    study_json = json.loads((tmp_path / "study.json").read_text())
    assert study_json["schema"] == 2
    assert study_json["study"] == "small"
    assert study_json["recipe"]["training"]["epochs"] == 2
    assert study_json["data"]["fingerprint"] == study.data.fingerprint
    assert study_json["data"]["domains"] == ["digits", "textures"]
    assert (study_json["data"]["train_rows"], study_json["data"]["test_rows"]) == (120, 200)
    assert len(study_json["data"]["classes"]) == 20
    assert study_json["versions"]["torch"] == torch.__version__
    assert set(study_json["hardware"]) == {"processor", "cores", "gpu", "system"}


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("training.epochs=3", "training.epochs: 2 there, 3 here"),
        ("training.optimizer.lr=0.5", "training.optimizer.lr: 0.01 there, 0.5 here"),
        ("variants.linear.gate.kind=uniform", "variants.linear.gate.kind: nothing there, 'uniform' here"),
        ("model.combine.kind=weighted_sum", "model.combine.kind: 'log_mixture' there, 'weighted_sum' here"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused(override, difference, planned, tmp_path):
    planned(tmp_path)
    before = (tmp_path / "study.json").read_text()
    with pytest.raises(StudyError, match="holds another study") as error:
        planned(tmp_path, override, seeds=3)
    assert difference in error.value.message
    assert "seeds" not in error.value.message  # those may grow
    assert error.value.fix == f"--out {tmp_path}-2"
    assert (tmp_path / "study.json").read_text() == before


def test_other_data_in_the_same_folder_are_refused(planned, tmp_path):
    planned(tmp_path)
    with pytest.raises(StudyError, match="its data differ"):
        planned(tmp_path, "data.train_rows=100")


@pytest.mark.parametrize("override", ["title=Another question", "training.checkpoint_seconds=5", "description=words"])
def test_what_changes_no_result_may_change(override, planned, tmp_path):
    planned(tmp_path)
    plan = planned(tmp_path, override, seeds=2).plan
    assert len(plan.runs) == 4
    assert plan.runs[0].training["checkpoint_seconds"] == (5 if "seconds" in override else 1e-6)


def test_threads_and_precision_are_decided_once(small_recipe, planned, tmp_path):
    data = planned(tmp_path / "other").data
    first = make_plan(small_recipe(), data, "cpu", 1, tmp_path / "study")
    again = make_plan(small_recipe(), data, "cpu", 2, tmp_path / "study")
    assert (first.workers, again.workers) == (1, 2)
    assert first.threads == again.threads
    path = tmp_path / "study" / "study.json"
    study_json = read_json(path)
    study_json["precision"]["conv"] = ["bf16", "decided before"]
    write_json(path, study_json)
    run = make_plan(small_recipe(), data, "cpu", None, tmp_path / "study").runs[1]
    assert (run.training["precision"], run.precision_reason) == ("bf16", "decided before")


def test_a_variant_may_be_added_and_none_may_be_left_out(planned, tmp_path):
    added = "  third: {gate: {kind: uniform}}"
    planned(tmp_path)
    names = [run.variant for run in planned(tmp_path, added=added).plan.runs]
    assert names == ["linear", "conv", "third"]
    with pytest.raises(StudyError, match=r"variants\.third.*there, nothing here"):
        planned(tmp_path)
    with pytest.raises(StudyError, match="there, 3 here") as error:
        planned(tmp_path, "training.epochs=3", added=added)
    assert "third" not in error.value.message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1000}', "null"])
def test_a_study_json_that_is_none_is_refused(content, planned, tmp_path):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=r"study.json: cannot be read") as error:
        planned(tmp_path)
    path = tmp_path / "study.json"
    assert error.value.fix == f"--out {tmp_path}-2"
    assert path.read_text() == content


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_study_begun_on_a_gpu_does_not_go_on_without(planned, tmp_path):
    planned(tmp_path)
    path = tmp_path / "study.json"
    study_json = read_json(path)
    study_json["machine"]["device"] = "cuda"
    write_json(path, study_json)
    with pytest.raises(StudyError, match="was begun on a GPU"):
        planned(tmp_path)


TWO = "variants={linear: {}, hidden: {gate: {kind: mlp, hidden: [8]}}}"


def names(cohorts):
    return [[run.name for run in cohort] for cohort in cohorts]


def jobs(plan, runs):
    return names(job.runs for job in plan.jobs(runs))


def test_cohorts_are_decided_once(planned, tmp_path):
    first = planned(tmp_path, TWO, seeds=2).plan
    assert names(first.cohorts) == [["hidden/seed-0", "hidden/seed-1"], ["linear/seed-0", "linear/seed-1"]]
    for workers in (1, 2, 3):
        again = planned(tmp_path, TWO, seeds=2, workers=workers).plan
        assert names(again.cohorts) == names(first.cohorts)
        assert again.runs == first.runs


def test_seeds_that_come_later_are_stacked_among_themselves(planned, tmp_path):
    planned(tmp_path, TWO, seeds=2)
    larger = planned(tmp_path, TWO, seeds=5).plan
    assert names(larger.cohorts) == [
        ["hidden/seed-0", "hidden/seed-1"],
        ["linear/seed-0", "linear/seed-1"],
        ["hidden/seed-2", "hidden/seed-3", "hidden/seed-4"],
        ["linear/seed-2", "linear/seed-3", "linear/seed-4"],
    ]
    assert names(planned(tmp_path, TWO, seeds=5).plan.cohorts) == names(larger.cohorts)
    # Jobs are the whole cohorts of what is asked for, and the runs that are in none.
    assert jobs(larger, larger.runs[6:7]) == names(larger.cohorts[3:])


def test_a_run_that_was_planned_alone_stays_alone(planned, tmp_path):
    planned(tmp_path, TWO, seeds=1)
    larger = planned(tmp_path, TWO, seeds=2).plan
    assert larger.cohorts == ()
    assert jobs(larger, larger.runs) == [[run.name] for run in larger.runs]
    assert names(planned(tmp_path, TWO, seeds=4).plan.cohorts) == [
        ["hidden/seed-2", "hidden/seed-3"],
        ["linear/seed-2", "linear/seed-3"],
    ]


def test_fewer_seeds_leave_the_cohorts_whole(planned, tmp_path):
    planned(tmp_path, TWO, seeds=3)
    fewer = planned(tmp_path, TWO, seeds=1).plan
    assert [run.name for run in fewer.runs] == ["linear/seed-0", "hidden/seed-0"]
    assert jobs(fewer, fewer.runs) == [[f"{name}/seed-{seed}" for seed in range(3)] for name in ("hidden", "linear")]


def test_a_study_of_an_older_version_is_refused(planned, tmp_path):
    planned(tmp_path)
    path = tmp_path / "study.json"
    write_json(path, {**read_json(path), "schema": 1})
    text = path.read_text()
    with pytest.raises(StudyError, match=r"is a study of moebius 0\.2\.0 \(its study.json has schema 1, ") as caught:
        planned(tmp_path)
    assert caught.value.fix == f"--out {tmp_path}-2"
    assert path.read_text() == text


def test_what_is_refused_leaves_no_study(small_recipe, planned, tmp_path):
    data = planned(tmp_path / "other").data
    noisy = small_recipe("variants.linear.router={kind: gumbel}", seeds=2)
    with pytest.raises(StudyError, match="--cohorts always: linear draws random numbers while it trains"):
        make_plan(noisy, data, "cpu", 1, tmp_path / "study", cohorts="always")
    assert not (tmp_path / "study" / "study.json").exists()
    assert make_plan(noisy, data, "cpu", 1, tmp_path / "study", cohorts="never").cohorts == ()
