"""Studies whose variants get their pixels on several scales, from the same rows."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moebius.lab.cli._prediction import ask
from moebius.lab.data import PixelScale, Split
from moebius.lab.predict import Subject, load_run, predict
from moebius.lab.study.cohorts import form_cohorts
from moebius.lab.study.diagnose_run import diagnose_run
from moebius.lab.study.run_rows import load_run_data
from moebius.lab.study.stages import plan_stages
from moebius.lab.study.study_file import settled_hashes

SCALES = ("unit", "raw", "signed", "standardised")
VARIANTS = "variants={" + ", ".join(f"{scale}: {{data: {{scale: {scale}}}}}" for scale in SCALES) + "}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("scales")


@pytest.fixture
def study(planned, record, shared):
    """One run of each scale, trained once for all tests."""
    study = planned(shared, VARIANTS, cohorts="never")
    for job in study.plan.jobs([run for run in study.plan.runs if not run.is_finished]):
        job.write()
        record().train_job(job.runs, study.data)
    return study


def recorded(run):
    table = pd.read_parquet(run / "routing.parquet").query("split == 'test'")
    return table.sort_values(by="row")


def by_hand(split, scale):
    """The split with the numbers that its model gets, as floats, which nothing scales again."""
    pixels = split.images.float()
    values = {"unit": pixels / 255, "raw": pixels, "signed": pixels / 127.5 - 1}
    mean, deviation = pixels.double().mean(), pixels.double().std(correction=0)
    values["standardised"] = (pixels - mean) / deviation
    return Split(values[scale].float(), split.labels, split.domains), (mean, deviation)


@pytest.mark.parametrize("scale", SCALES)
def test_a_run_is_that_of_data_scaled_by_hand(scale, study, record, tmp_path):
    run = next(run for run in study.plan.runs if run.variant == scale)
    train, (mean, deviation) = by_hand(study.data.train, scale)
    test, _ = by_hand(study.data.test, scale)
    if scale == "standardised":
        test = replace(test, images=((study.data.test.images - mean) / deviation).float())
    data = replace(study.data, train=train, test=test)
    alone = replace(run, folder=tmp_path / "by-hand" / "seed-0", scale="unit")
    assert not record().train_job((alone,), data).failures
    expected, actual = (load_file(each.folder / "model.safetensors") for each in (alone, run))
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=1e-3, atol=1e-4)
    result, of_hand = (json.loads((each.folder / "result.json").read_text()) for each in (run, alone))
    assert result["accuracy"]["test"] == pytest.approx(of_hand["accuracy"]["test"], abs=0.011)


def test_scales_matter(study):
    losses = {json.loads((run.folder / "result.json").read_text())["loss"]["test"] for run in study.plan.runs}
    assert len(losses) == len(SCALES)


@pytest.mark.parametrize("scale", SCALES)
def test_files_and_own_rows_are_predicted_on_the_scale_of_the_run(scale, study, tmp_path):
    run = study.out / scale / "seed-0"
    pixels = study.data.test.images[:9, 0].numpy()
    paths = [tmp_path / f"{row}.png" for row in range(9)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    expected = recorded(run).head(9)
    predictions = predict(run, paths)
    assert [each.label for each in predictions] == [study.data.classes[row] for row in expected["prediction"]]
    assert [each.probability for each in predictions] == pytest.approx(list(expected["probability"]), abs=1e-5)
    subject = Subject.of(run)
    asked = ask(subject, [], [f"test:{row}" for row in range(9)], [], False, None, None)
    from_files, _, _ = subject.read([str(path) for path in paths])
    from_pixels, _, _ = subject.read(study.data.test.images[:9], torch.zeros(9, dtype=torch.long))
    assert torch.equal(asked.x, from_files)
    assert torch.equal(asked.x, from_pixels)
    model, header = load_run(run)
    probabilities = model(asked.x, {"domain": study.data.test.domains[:9]}).exp().amax(1)
    np.testing.assert_allclose(probabilities.detach(), expected["probability"], atol=1e-5)
    assert ("scale" in header) == (scale != "unit")
    assert PixelScale.from_values(header.get("scale")) == study.data.with_scale(scale).scale


def test_a_run_with_raw_pixels_really_gets_0_to_255(study):
    data = load_run_data(study.out / "raw" / "seed-0")
    batch = Subject.of(study.out / "raw" / "seed-0").read(data.test.images, data.test.domains)[0]
    assert batch.max() == 255
    assert torch.equal(batch, data.test.images.float())


def test_diagnoses_are_on_the_scale_of_the_run(study):
    for scale in ("raw", "unit"):
        found = diagnose_run(study.out / scale / "seed-0")
        weights = recorded(study.out / scale / "seed-0")[["gate_0", "gate_1"]].to_numpy()
        np.testing.assert_allclose(found.diagnosis.examinations[0].rows.weights, weights, atol=1e-5)


def test_runs_of_unlike_scales_share_no_cohort(planned, tmp_path):
    study = planned(tmp_path, VARIANTS, seeds=3, cohorts="always")
    cohorts, _ = form_cohorts(study.plan.runs, study.data, "cpu", 1, "always")
    assert sorted([run.scale for run in cohort] for cohort in cohorts) == [[scale] * 3 for scale in sorted(SCALES)]


def test_a_cohort_has_the_figures_of_its_runs_alone(planned, record, tmp_path):
    together = planned(tmp_path / "cohort", VARIANTS, seeds=2, cohorts="always")
    for cohort in together.plan.cohorts:
        assert not record().train_job(cohort, together.data).failures
    apart = planned(tmp_path / "alone", VARIANTS, seeds=2, cohorts="never")
    for run in apart.plan.runs:
        record().train_job((run,), apart.data)
        texts = [(study.out / run.name / "result.json").read_text() for study in (together, apart)]
        first, second = (json.loads(text)["loss"]["test"] for text in texts)
        assert first == pytest.approx(second, rel=1e-3)


def test_what_has_the_default_keeps_its_hash(small_recipe, stage_recipe, few_stages, planned, tmp_path):
    data = planned(tmp_path).data
    hashes = {
        text: settled_hashes(small_recipe(*text.split()), data, {})
        for text in ("", "data.scale=unit", "data.scale=raw", "variants.linear.data.scale=raw")
    }
    assert hashes[""] == hashes["data.scale=unit"]
    before, raw, one_raw = (hashes[key]["variants"] for key in ("", "data.scale=raw", "variants.linear.data.scale=raw"))
    assert raw["linear"] == one_raw["linear"] != before["linear"]
    assert one_raw["conv"] == before["conv"] != raw["conv"]
    recipes = [stage_recipe(few_stages(), *overrides) for overrides in ((), ("data.scale=unit",), ("data.scale=raw",))]
    unit, same, other = (plan_stages(recipe, data)[1] for recipe in recipes)
    assert unit == same
    assert all(unit[name] != other[name] for name in unit)


def test_stages_are_trained_on_the_scale_of_the_data(few_stages, stage_study, stage_recipe, tmp_path):
    values = few_stages()
    values["data"] = {**values["data"], "scale": "raw"}
    study = stage_study(stage_recipe(values), tmp_path / "study")
    assert not study.run()
    for name in ("a", "a-b"):
        assert load_run(study.folder(name))[1]["scale"] == {"kind": "raw"}
    # Outputs of frozen stages were looked up while the variant trained: they are those of raw pixels.
    run = study.folder("a-b")
    model, _ = load_run(run)
    x = study.data.test.images.float()
    with torch.no_grad():
        expected = torch.softmax(model(x), 1).amax(1)
    np.testing.assert_allclose(recorded(run)["probability"], expected, atol=1e-4)
