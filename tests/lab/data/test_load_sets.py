import pytest
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.sources.hub import Hub
from moebius.lab.data.sources.textures import Textures


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def load(cache):
    """Loads the sources, or digits and textures, with the options of `load_sets`."""

    def load(*sources, **options):
        return load_sets(sources or [Digits(), Textures(20)], size=8, cache_dir=cache, **options)

    return load


def test_sets_are_combined_with_offset_labels_and_domains(load):
    both, digits, textures = load(), load(Digits()), load(Textures(20))
    assert both.domains == ("digits", "textures")
    assert both.classes[:2] == ("digits 0", "digits 1")
    assert both.classes[10] == "textures stripes"
    assert both.facts == {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
    is_digit, is_texture = both.train.domains == 0, both.train.domains == 1
    assert torch.equal(both.train.images[is_digit], digits.train.images)
    assert torch.equal(both.train.labels[is_digit], digits.train.labels)
    assert torch.equal(both.train.labels[is_texture], textures.train.labels + 10)
    assert len(both.test) == len(digits.test) + len(textures.test)


def test_one_set_keeps_its_class_names(load):
    data = load(Digits())
    assert data.classes == tuple("0123456789")
    assert data.validation is None
    assert data.train.domains.unique().tolist() == [0]


def test_sets_of_one_name_are_told_apart(load):
    data = load(Textures(20), Textures(20, seed=1), Textures(20, seed=2))
    assert data.domains == ("textures", "textures 2", "textures 3")
    assert len(set(data.classes)) == 30


def test_the_same_set_twice_is_refused(load):
    with pytest.raises(ArgumentError, match="sets: must differ from each other, got 'digits'"):
        load(Digits(), Digits())


def row_keys(split) -> list[tuple]:
    """Label and pixels of each row."""
    return [
        (label, *image.flatten().tolist()) for label, image in zip(split.labels.tolist(), split.images, strict=True)
    ]


def test_validation_rows_are_held_out_of_training(load):
    all_rows, data = load(Textures(20)), load(Textures(20), validation_rows=30)
    assert (len(data.validation), len(data.train)) == (30, 130)
    assert sorted(row_keys(data.validation) + row_keys(data.train)) == sorted(row_keys(all_rows.train))
    assert torch.equal(data.test.images, all_rows.test.images)


def test_validation_rows_do_not_depend_on_how_many_are_trained_on(load):
    few, many = (load(Textures(20), validation_rows=30, train_rows=rows) for rows in (50, 100))
    assert torch.equal(few.validation.images, many.validation.images)
    assert (len(few.train), len(many.train)) == (50, 100)
    assert set(row_keys(few.train)) < set(row_keys(many.train))


def test_rows_are_drawn_over_all_sets_and_always_the_same(load):
    data, again = load(train_rows=400, test_rows=40), load(train_rows=400, test_rows=40)
    assert (len(data.train), len(data.test)) == (400, 40)
    assert torch.equal(data.train.images, again.train.images)
    share = (data.train.domains == 1).float().mean().item()
    assert share == pytest.approx(160 / 1598, abs=0.06)


def test_the_number_of_all_rows_gives_all_rows(load):
    assert torch.equal(load(train_rows=1598, test_rows=399).train.images, load().train.images)


def test_the_fingerprint_covers_every_choice(load):
    variants = [
        load(),
        load(train_rows=100),
        load(test_rows=100),
        load(validation_rows=100),
        load(color="rgb"),
        load(classes=["digits 0", "textures noise"]),
        load(Digits()),
        load(Textures(20), Digits()),
        load(Digits(), Textures(20, seed=1)),
    ]
    assert len({data.fingerprint for data in variants}) == len(variants)
    assert load().fingerprint == variants[0].fingerprint


def test_classes_and_rows_together(load):
    data = load(classes=["textures noise", 3], train_rows=20)
    assert data.classes == ("textures noise", "digits 3")
    assert len(data.train) == 20
    assert set(data.test.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_rows": 0}, "train_rows: must be at least 1"),
        ({"train_rows": 10**6}, "train_rows: must be at most 1598"),
        ({"train_rows": 1591, "validation_rows": 8}, "train_rows: must be at most 1590"),
        ({"test_rows": 400}, "test_rows: must be at most 399"),
        ({"validation_rows": -1}, "validation_rows: must be at least 0"),
        ({"validation_rows": 1598}, "validation_rows: must be below 1598, the number of training rows"),
        ({"color": "blue"}, "color: must be grey or rgb"),
        ({"classes": ["textures noose"]}, "did you mean textures noise"),
    ],
)
def test_invalid_choices_are_refused(load, options, message):
    with pytest.raises(ArgumentError, match=message):
        load(**options)


def test_no_set_and_no_size_are_refused():
    with pytest.raises(ArgumentError, match="sets: needs at least one set"):
        load_sets([], size=8)
    with pytest.raises(ArgumentError, match="size: must be at least 1"):
        load_sets([Digits()], size=0)


def test_a_wrong_label_is_refused_and_leaves_no_cache_file(toy_set, tmp_path, make_parquet, make_png):
    make_parquet(toy_set / "toy/train-00000-of-00001.parquet", [make_png(0)] * 2, [1, 17], ["dark", "light"])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: row 1: the label 17 is none of the 2 classes"):
        load_sets([Hub("any/toy")], 4, data_dir=toy_set, cache_dir=tmp_path / "cache")
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


@pytest.mark.data
@pytest.mark.thorough
def test_mnist_and_cifar10(real_data, tmp_path):
    data = load_sets([Hub("ylecun/mnist"), Hub("uoft-cs/cifar10")], 32, data_dir=real_data, cache_dir=tmp_path)
    assert data.domains == ("mnist", "cifar10")
    assert data.classes[3] == "mnist 3"
    assert data.classes[13] == "cifar10 cat"
    assert [len(data.train), len(data.test)] == [110_000, 20_000]
    assert data.train.domains.bincount().tolist() == [60_000, 50_000]
    assert data.test.labels.bincount().tolist()[10:] == [1000] * 10
    assert torch.equal(data.train.labels // 10, data.train.domains)
    assert data.train.labels[[0, 1, 60_000, 60_001]].tolist() == [3, 7, 11, 11]
    sums = data.train.images[[0, 1, 60_000, 60_001]].sum((1, 2, 3)).tolist()
    assert sums[:2] == [25_724, 48_933]
    # JPEG decoders may differ by a level here and there.
    assert sums[2:] == pytest.approx([129_402, 139_328], abs=1024)
