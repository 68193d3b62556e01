"""`data.split: by_seed`: each seed has other rows to hold out and to train on, and the same test rows."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from moebius.lab.data import load_sets
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.sources.sklearn import Sklearn
from moebius.lab.study.job_spec import JobSpec, load_data
from moebius.lab.study.run_rows import load_run_data
from moebius.lab.study.stages import plan_stages
from moebius.lab.study.study_file import settled_hashes

BY_SEED = ("data.split=by_seed", "data.validation_rows=30")


def rows_of(split):
    return {images.numpy().tobytes() for images in split.images}


@pytest.mark.parametrize("source", [Digits(), Sklearn("iris")])
def test_a_draw_chooses_training_and_held_out_rows_and_no_test_rows(source, tmp_path):
    options = {"size": 8, "train_rows": 60, "test_rows": 20, "validation_rows": 25, "cache_dir": tmp_path}
    first, again, other = (load_sets([source], draw=draw, **options) for draw in (0, 0, 1))
    assert load_sets([source], **options).fingerprint == first.fingerprint == again.fingerprint != other.fingerprint
    assert first.validation is not None
    assert other.validation is not None
    assert len(other.validation) == 25
    assert len(other.train) == 60
    assert torch.equal(first.test.labels, other.test.labels)
    assert not torch.equal(first.train.images, other.train.images)
    assert not torch.equal(first.validation.images, other.validation.images)
    if source.name == "digits":
        assert torch.equal(first.test.images, other.test.images)
        assert not rows_of(other.train) & rows_of(other.validation)


def test_the_jobs_of_a_seed_have_its_rows(planned, tmp_path):
    study = planned(tmp_path, *BY_SEED, seeds=3)
    spec = json.loads(json.dumps(study.plan.data))
    for job in study.plan.jobs(study.plan.runs):
        (seed,) = {run.seed for run in job.runs}
        job.write()
        rows, expected = JobSpec.read(job.folder).load_data(), load_data(spec, None, draw=seed)
        assert rows.fingerprint == expected.fingerprint
        assert torch.equal(rows.train.images, expected.train.images)
        assert torch.equal(rows.test.images, study.data.test.images)
        assert (rows.fingerprint == study.data.fingerprint) == (seed == 0)


def test_a_run_keeps_the_rows_that_it_was_trained_on(planned, record, tmp_path):
    study = planned(tmp_path, *BY_SEED, seeds=2)
    tables = {}
    for job in study.plan.jobs(study.plan.runs):
        job.write()
        data = job.load_data()
        assert not record().train_job(job.runs, data).failures
        for run in job.runs:
            table = pq.read_table(run.folder / "routing.parquet").to_pandas()
            tables[run.name] = {name: rows["label"].tolist() for name, rows in table.groupby("split")}
            again = load_run_data(run.folder)
            assert again.validation is not None
            for name, split in {"train": again.train, "validation": again.validation, "test": again.test}.items():
                assert tables[run.name].get(name, split.labels.tolist()) == split.labels.tolist()
    # Variants of a seed are paired on the same rows; seeds share the test rows alone.
    for seed in (0, 1):
        assert tables[f"linear/seed-{seed}"] == tables[f"conv/seed-{seed}"]
    first, second = tables["linear/seed-0"], tables["linear/seed-1"]
    assert first["test"] == second["test"]
    assert any(first[name] != second[name] for name in first if name != "test")


def test_runs_of_unlike_seeds_share_no_cohort(planned, tmp_path):
    losses = "variants={a: {}, b: {training: {losses: [{kind: batch_entropy, weight: 0.1}]}}}"
    study = planned(tmp_path, losses, *BY_SEED, seeds=2, cohorts="always")
    assert [[run.name for run in cohort] for cohort in study.plan.cohorts] == [
        [f"{name}/seed-{seed}" for name in "ab"] for seed in (0, 1)
    ]


def test_the_default_keeps_its_hashes(small_recipe, stage_recipe, few_stages, planned, tmp_path):
    data = planned(tmp_path).data
    recipes = [small_recipe(), small_recipe("data.split=fixed"), small_recipe("data.split=by_seed")]
    plain, fixed, by_seed = (settled_hashes(recipe, data, {})["variants"] for recipe in recipes)
    assert plain == fixed
    assert all(plain[name] != by_seed[name] for name in plain)
    before, after = (plan_stages(stage_recipe(few_stages(), *more), data)[1] for more in ((), ("data.split=by_seed",)))
    assert all(before[name] != after[name] for name in before)


def test_stages_hold_out_the_rows_of_their_seed(few_stages, stage_study, stage_recipe, tmp_path):
    values = few_stages(seeds=2)
    values["data"] = {**values["data"], "split": "by_seed"}
    study = stage_study(stage_recipe(values), tmp_path / "study")
    stages = [run for run in study.plan.all_runs if run.variant in ("a", "alone")]
    fingerprints = {}
    for job in study.plan.jobs(stages):
        fingerprints.setdefault(job.runs[0].seed, set()).add(job.load_data().fingerprint)
    assert [len(fingerprints[seed]) for seed in (0, 1)] == [1, 1]
    assert fingerprints[0] != fingerprints[1]
