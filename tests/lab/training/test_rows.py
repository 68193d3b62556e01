import pytest
import torch

from moebius.lab.data.augmented_views import make_augmented_views
from moebius.lab.data.split import Split
from moebius.lab.training.rows import TrainingRows

AUGMENT = [{"kind": "noise", "std": 0.1}, {"kind": "flip"}]


@pytest.fixture
def split():
    images = torch.randint(256, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, torch.arange(5), torch.zeros(5, dtype=torch.int64))


def test_without_augmentation_the_rows_are_always_themselves(split, settings):
    rows = TrainingRows(split, settings(), seed=0)
    assert (rows.name, rows.drawn_anew) == ("training", False)
    for epoch in range(4):
        split_of_epoch, first = rows.of(epoch)
        assert split_of_epoch is split
        assert first == 0


def test_augmentation_draws_anew(split, settings):
    rows = TrainingRows(split, settings(augment=AUGMENT), seed=0)
    assert rows.drawn_anew
    assert rows.of(1) == (split, 0)  # a step augments them


def test_views_take_turns(split, settings):
    chosen = settings(augment=AUGMENT, views=3)
    rows, expected = TrainingRows(split, chosen, seed=7), make_augmented_views(split, chosen.augment, 3, 7)
    assert not rows.drawn_anew
    assert torch.equal(rows.split.images, expected.images)
    for epoch in range(7):
        split_of_epoch, first = rows.of(epoch)
        assert first == 5 * (epoch % 3)
        assert torch.equal(split_of_epoch.images, expected.images[first : first + 5])
        assert torch.equal(split_of_epoch.labels, split.labels)
    assert not torch.equal(rows.of(0)[0].images, rows.of(1)[0].images)


def test_the_name_tells_one_set_of_views_from_another(split, settings):
    def name(seed=0, count=2, augment=AUGMENT):
        return TrainingRows(split, settings(augment=augment, views=count), seed).name

    names = {name(), name(seed=1), name(count=3), name(augment=AUGMENT[::-1]), name(augment=AUGMENT[:1])}
    names.add(name(augment=[{"kind": "noise", "std": 0.2}, {"kind": "flip"}]))
    assert len(names | {"training"}) == 7
    assert name() == name()


def test_a_model_without_anything_to_train_needs_no_views(split, settings):
    rows = TrainingRows(split, settings(augment=AUGMENT, views=3), seed=0, is_trainable=False)
    assert rows.split is split
    assert rows.name == "training"


def test_steps_see_the_views_of_their_epoch_and_no_other(small_data, settings, build, tmp_path, alone):
    data, seen = small_data(), []
    chosen = settings(epochs=3, augment=AUGMENT, views=2)
    loop = alone(build(data), data, chosen, 0, tmp_path)
    loop.model.gate.register_forward_hook(
        lambda gate, inputs, scores: seen.append(inputs[0]) if gate.training else None
    )
    loop.train()
    expected = make_augmented_views(data.train, chosen.augment, 2, 0).images.float() / 255
    for epoch, view in enumerate((0, 1, 0)):
        images = torch.cat(seen[3 * epoch : 3 * epoch + 3])
        view_rows = expected[120 * view : 120 * view + 120]
        assert images.shape == view_rows.shape
        assert {row.numpy().tobytes() for row in images} == {row.numpy().tobytes() for row in view_rows}


@pytest.mark.parametrize("count", [None, 2])
def test_an_interrupted_run_sees_the_same_augmented_rows(count, small_data, settings, build, interrupted, tmp_path):
    data = small_data()
    chosen = settings(epochs=3, augment=AUGMENT, views=count)
    view_rows = interrupted(tmp_path / "whole", build(data), data, chosen)
    pieces = interrupted(tmp_path / "pieces", build(data), data, chosen, (2, 4))
    assert view_rows.metrics == pieces.metrics
    plain = interrupted(tmp_path / "plain", build(data), data, settings(epochs=3))
    assert plain.metrics != view_rows.metrics
