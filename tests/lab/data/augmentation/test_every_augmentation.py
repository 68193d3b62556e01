"""What holds for every augmentation; a new one is tested by being there."""

import inspect
import pickle
import random

import numpy as np
import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.augmentation._augmentation import Augmentation

KINDS = kinds("data.augmentation")
# Where the defaults leave some images as they are, and where an amount can be 0.
EAGER = {"chance": 1.0}
NEUTRAL = {"chance": 0.0, "fraction": 0.0, "degrees": 0.0, "std": 0.0, "brightness": 0.0, "contrast": 0.0}
NEUTRAL |= {"saturation": 0.0, "hue": 0.0}


def build(kind, **given):
    """The augmentation with those of the arguments that it has."""
    component = find("data.augmentation", kind)
    return component(
        **{name: value for name, value in given.items() if name in inspect.signature(component).parameters}
    )


def pictures(rows=6, channels=3, height=12, width=10, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    return torch.rand(rows, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_is_an_augmentation_that_keeps_its_arguments(kind):
    component = find("data.augmentation", kind)
    assert issubclass(component, Augmentation)
    made = component()
    arguments = {name: getattr(made, name) for name in inspect.signature(component).parameters}
    again = component(**arguments)
    assert vars(again) == vars(made)
    assert vars(pickle.loads(pickle.dumps(made))) == vars(made)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rows", [6, 1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_keeps_shape_dtype_and_range(kind, rows, channels, dtype):
    images = pictures(rows, channels, dtype=dtype)
    changed = build(kind)(images)
    assert changed.shape == images.shape
    assert changed.dtype == dtype
    assert changed.isfinite().all()
    assert ((changed >= 0) & (changed <= 1)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_tiny_images(kind, size):
    changed = build(kind, **EAGER)(pictures(5, 3, *size))
    assert changed.shape == (5, 3, *size)
    assert changed.isfinite().all()


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_input_is_untouched_and_not_shared(kind, chance):
    images = pictures()
    before = images.clone()
    build(kind, chance=chance)(images).fill_(0.25)
    assert torch.equal(images, before)


def test_changes_something(kind):
    images = pictures()
    assert not torch.equal(build(kind, **EAGER)(images), images)


def test_two_equal_rows_get_unlike_draws(kind):
    images = pictures(1).expand(40, -1, -1, -1)
    changed = build(kind, chance=0.5)(images)
    assert len(changed.flatten(1).unique(dim=0)) > 1


def test_what_a_row_becomes_does_not_depend_on_the_others(kind):
    images = pictures(8)
    others = torch.cat([images[:1], pictures(9)[:7]])
    torch.manual_seed(1)
    first = build(kind)(images)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(build(kind)(others)[0], first)


def test_probability_or_amount_zero_is_the_identity(kind):
    parameters = inspect.signature(find("data.augmentation", kind)).parameters
    neutral = {name: value for name, value in NEUTRAL.items() if name in parameters}
    if kind == "scale":
        neutral = {"low": 1.0, "high": 1.0}
    if not neutral:
        return  # `crop` has no such amount
    images = pictures()
    torch.testing.assert_close(build(kind, **neutral)(images), images, atol=2e-6, rtol=0)


def test_a_kept_generator_state_draws_the_same_again(kind):
    augmentation, images = build(kind), pictures(40)
    torch.manual_seed(3)
    augmentation(images)
    state = torch.get_rng_state()
    first = augmentation(images)
    assert not torch.equal(torch.get_rng_state(), state)
    second = augmentation(images)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(build(kind)(images), first)


def test_other_generators_do_not_matter(kind):
    images = pictures(20)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 – the global generator is the point
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        torch.manual_seed(0)
        results.append(build(kind)(images))
        # Python's own moves on in the tests: checking shapes draws from it.
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert torch.equal(*results)


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_format_stays_and_does_not_matter(kind, channels):
    images = pictures(20, channels)
    last = images.to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    changed = build(kind)(images)
    torch.manual_seed(0)
    changed_last = build(kind)(last)
    assert changed.stride() == images.stride()
    assert changed_last.stride() == last.stride()
    torch.testing.assert_close(changed_last, changed, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-5), (torch.bfloat16, 1 / 64)])
def test_draws_are_the_same_in_any_precision(kind, dtype, error):
    images = pictures(20, dtype=torch.bfloat16)
    torch.manual_seed(0)
    wide = build(kind)(images.float())
    torch.manual_seed(0)
    torch.testing.assert_close(build(kind)(images.to(dtype)).float(), wide, atol=error, rtol=0)


def test_no_gradients(kind):
    assert not build(kind)(pictures().requires_grad_()).requires_grad
    with torch.no_grad():
        assert build(kind)(pictures()).shape == pictures().shape


def test_bytes_are_refused(kind):
    with pytest.raises(ArgumentError, match=r"images: must be floating-point numbers.*uint8"):
        inspect.unwrap(Augmentation.__call__)(build(kind), (pictures() * 255).to(torch.uint8))


def test_among_others_in_a_sequence(kind):
    images = pictures()
    both = [build(kind), build("flip", chance=1.0)]
    torch.manual_seed(0)
    expected = both[1](both[0](images))
    torch.manual_seed(0)
    assert torch.equal(apply_augmentations(images, both), expected)
    assert apply_augmentations(images, []) is images
