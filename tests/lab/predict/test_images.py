"""Predictions for image files equal those that the run recorded for the rows of its data."""

import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from moebius.kit.errors import ArgumentError, DataError, StudyError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.sources.textures import Textures
from moebius.lab.predict import load_run, predict
from moebius.lab.study.display import Display
from moebius.lab.study.job import run_job
from moebius.lab.study.run_spec import RunSpec

TRAINING = {
    "epochs": 2,
    "batch_size": 50,
    "optimizer": {"kind": "adam", "lr": 1e-2},
    "gate": {"lr": None, "freeze": False, "start_epoch": 0},
    "experts": {"lr": None, "freeze": False, "start_epoch": 0},
    "losses": [],
    "clip_norm": None,
    "precision": "fp32",
    "checkpoint_seconds": 30,
}
EXPERTS = {"kind": "linear", "count": 2}
MODELS = {
    "linear": {"gate": {"kind": "linear"}, "experts": EXPERTS, "combine": {"kind": "log_mixture"}},
    "logits": {"gate": {"kind": "linear"}, "experts": EXPERTS, "router": {"kind": "argmax"}},
    "predesigned": {"gate": {"kind": "domain"}, "experts": EXPERTS, "router": {"kind": "argmax"}},
}
IMAGES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    sources = [Digits(), Textures(rows_per_class=20)]
    return load_sets(sources, size=8, train_rows=200, test_rows=40, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    for name, model in MODELS.items():
        run = RunSpec(name, 0, out / name / "seed-0", model, TRAINING, "")
        display = Display(Console(quiet=True), 1, 0)
        run_job((run,), lambda: data, "cpu", display)
        display.raise_failures()
    return out


@pytest.fixture(scope="module")
def images(data, tmp_path_factory):
    """The first test rows as picture files."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{row}.png" for row in range(IMAGES)]
    for path, pixels in zip(paths, data.test.images[:IMAGES, 0].numpy(), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def read_rows(study, variant):
    """The recorded predictions of the first test rows."""
    table = pd.read_parquet(study / variant / "seed-0" / "routing.parquet")
    return table[table["split"] == "test"].sort_values("row").head(IMAGES).to_dict("records")


@pytest.mark.parametrize("variant", ["linear", "logits"])
def test_files_have_the_predictions_of_their_rows(study, data, images, variant):
    predictions = predict(study / variant / "seed-0", images)
    for path, row, prediction in zip(images, read_rows(study, variant), predictions, strict=True):
        assert prediction.path == path
        assert prediction.label == data.classes[row["prediction"]]
        assert prediction.probability == pytest.approx(row["probability"], abs=1e-5)
        weights = {expert: row[f"gate_{expert}"] for expert in range(2) if row[f"gate_{expert}"] > 0}
        assert dict(prediction.experts) == pytest.approx(weights, abs=1e-5)
        assert prediction.experts == sorted(prediction.experts, key=lambda pair: pair[1], reverse=True)


def test_the_domain_gate_routes_by_the_domain(study, data, images):
    run, rows = study / "predesigned" / "seed-0", read_rows(study, "predesigned")
    for number, domain in enumerate(data.domains):
        for row, prediction in zip(rows, predict(run, images, domain=domain), strict=True):
            assert prediction.experts == [(number, 1.0)]
            if row["domain"] == number:
                assert prediction.label == data.classes[row["prediction"]]
                assert prediction.probability == pytest.approx(row["probability"], abs=1e-5)


def test_the_most_probable_classes(study, data, images):
    (prediction,) = predict(study / "linear" / "seed-0", images[:1], top=100)
    assert sorted(label for label, _ in prediction.top) == sorted(data.classes)
    assert [value for _, value in prediction.top] == sorted((value for _, value in prediction.top), reverse=True)
    assert sum(value for _, value in prediction.top) == pytest.approx(1, abs=1e-5)
    assert prediction.top[0] == (prediction.label, prediction.probability)
    assert len(predict(study / "linear" / "seed-0", images[:1], top=2)[0].top) == 2


def test_larger_images_in_colour_get_the_size_and_colour_of_the_data(study, images, tmp_path):
    large, tinted, small = (tmp_path / f"{name}.png" for name in ("large", "tinted", "small"))
    picture = Image.open(images[0]).resize((32, 32))
    picture.save(large)
    picture.convert("RGB").save(tinted)
    picture.resize((8, 8), Image.Resampling.BILINEAR).save(small)
    expected, *predictions = predict(study / "linear" / "seed-0", [small, large, tinted])
    for prediction in predictions:
        assert prediction.label == expected.label
        assert prediction.probability == pytest.approx(expected.probability, abs=1e-5)
        assert [expert for expert, _ in prediction.experts] == [expert for expert, _ in expected.experts]
        assert dict(prediction.experts) == pytest.approx(dict(expected.experts), abs=1e-5)


def test_the_loaded_run_is_in_eval_and_holds_the_trained_weights(study):
    model, description = load_run(study / "linear" / "seed-0")
    assert not model.training
    assert description["domains"] == ["digits", "textures"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    torch.manual_seed(0)
    untrained = torch.nn.Linear(64, 20).weight
    assert not torch.equal(model.experts[0].linear.weight, untrained)


def test_a_missing_and_a_broken_image(study, images, tmp_path):
    run = study / "linear" / "seed-0"
    with pytest.raises(DataError, match=r"nowhere\.png: there is no such image file"):
        predict(run, [images[0], tmp_path / "nowhere.png"])
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.png: the image cannot be decoded"):
        predict(run, [broken])


def test_a_folder_that_is_no_run(study, images, tmp_path):
    with pytest.raises(StudyError, match="holds no finished run") as caught:
        predict(tmp_path, images)
    assert "moebius run quickstart" in caught.value.fix
    with pytest.raises(StudyError, match="holds no finished run") as caught:
        predict(study, images)
    assert str(study / "linear" / "seed-0") in caught.value.fix


def test_domains_that_are_missing_or_unknown(study, images):
    run = study / "predesigned" / "seed-0"
    with pytest.raises(ArgumentError, match=r"^domain: must name the set that the images belong to") as caught:
        predict(run, images)
    assert caught.value.fix == "--domain digits"
    with pytest.raises(ArgumentError, match=r"^domain: needs one of digits, textures, got 'cifar10'"):
        predict(run, images, domain="cifar10")
