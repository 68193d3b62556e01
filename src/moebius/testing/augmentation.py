"""The contract of augmentations: a batch of images in [0, 1] → as many of the same shape; needs the extra `lab`."""

import inspect
import pickle
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.kit.extras import lab
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_equal,
    require_refusal,
    require_shape,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

# Arguments that are an amount or a chance of change: 0 leaves the images as they are.
_AMOUNTS = ("chance", "fraction", "degrees", "std", "brightness", "contrast", "saturation", "hue")


def check_augmentation(augmentation: Callable[..., Callable[[Tensor], Tensor]], **arguments: Any) -> None:
    """Hold an augmentation to the contract of the room `data.augmentation`: every function of `CHECKS`.

    Arguments:
        augmentation: the class.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the augmentation breaks.

    Example:
        >>> from moebius.lab.data.augmentation import Flip
        >>> check_augmentation(Flip, chance=0.75)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("data.augmentation", augmentation, arguments))


def is_an_augmentation_that_keeps_its_arguments(subject: Subject) -> None:
    """It is an `Augmentation` with its arguments as attributes, by which it is made anew, and it can be pickled."""
    base = lab("data.augmentation._augmentation", "Augmentation")
    augmentation = subject.make()
    require(isinstance(augmentation, base), "is no Augmentation", "class …(Augmentation)")
    missing = [name for name in subject.parameters if not hasattr(augmentation, name)]
    require(not missing, f"keeps no attributes of its arguments {missing}", "self.chance = chance")
    again = subject.component(**{name: getattr(augmentation, name) for name in subject.parameters})
    require(vars(again) == vars(augmentation), "is another augmentation once made anew from its attributes")
    unpickled = pickle.loads(pickle.dumps(augmentation))
    require(vars(unpickled) == vars(augmentation), "is another augmentation once pickled")


def keeps_shape_dtype_and_range(subject: Subject) -> None:
    """Images keep their shape and number format and stay in [0, 1], for 6 of them, one and none, grey and colourful."""
    for rows, channels, dtype in product((6, 1, 0), (1, 3), DTYPES):
        images = subject.make()(make_images(rows, channels, dtype=dtype))
        require_shape(images, (rows, channels, 12, 10), "images")
        require_dtype(images, dtype, "images")
        require(images.isfinite().all(), "gives pixels that are not finite")
        require(((images >= 0) & (images <= 1)).all(), "gives pixels outside of [0, 1]")


def takes_tiny_images(subject: Subject) -> None:
    """Images of a pixel or a few keep their shape and stay finite."""
    for size in ((1, 1), (1, 5), (3, 2)):
        images = subject.make(chance=1.0)(make_images(5, 3, *size))
        require_shape(images, (5, 3, *size), "images")
        require(images.isfinite().all(), f"gives pixels that are not finite for images of {size}")


def leaves_its_input_as_it_was(subject: Subject) -> None:
    """The images are not changed in place, and the result shares no memory with them."""
    for chance in (0.0, 0.5, 1.0):
        images = make_images()
        before = images.clone()
        changed = subject.make(chance=chance)(images)
        require_equal(images, before, "changes its input in place")
        changed.fill_(0.25)
        require_equal(images, before, "gives images that share memory with its input", "images.clone()")


def changes_something(subject: Subject) -> None:
    """With a chance of 1 the images are others."""
    images = make_images()
    require(not torch.equal(subject.make(chance=1.0)(images), images), "changes nothing")


def draws_for_each_row(subject: Subject) -> None:
    """Forty equal images do not all become the same."""
    changed = subject.make(chance=0.5)(make_images(1).expand(40, -1, -1, -1))
    require(len(changed.flatten(1).unique(dim=0)) > 1, "draws once for all rows", "draw as many numbers as rows")


def changes_a_row_whatever_stands_beside_it(subject: Subject) -> None:
    """What becomes of the first image does not depend on the others."""
    images = make_images(8)
    others = torch.cat([images[:1], make_images(9)[:7]])
    first, second = (_seeded(subject, batch, 1)[0] for batch in (images, others))
    require_close(second, first, "changes an image by the images beside it")


def changes_nothing_by_an_amount_of_zero(subject: Subject) -> None:
    """Amounts and chances of 0 leave the images as they are, and so does a range of factors from 1 to 1."""
    amounts: dict[str, Any] = {name: 0.0 for name in _AMOUNTS if subject.takes(name)}
    if not amounts and subject.takes("low") and subject.takes("high"):
        amounts = {"low": 1.0, "high": 1.0}
    if amounts:
        images = make_images()
        require_close(subject.make(**amounts)(images), images, f"changes images by {amounts}", atol=2e-6, rtol=0)


def draws_the_same_from_the_same_state(subject: Subject) -> None:
    """A state of torch's generator that was kept draws the same again, also for a new object."""
    augmentation, images = subject.make(), make_images(40)
    torch.manual_seed(3)
    augmentation(images)
    state = torch.get_rng_state()
    first = augmentation(images)
    require(not torch.equal(torch.get_rng_state(), state), "draws nothing from torch's generator")
    require(not torch.equal(augmentation(images), first), "draws the same every time")
    another = subject.make()
    torch.set_rng_state(state)
    rule = "draws other numbers from the same state of torch's generator"
    require_equal(another(images), first, rule, "keep no state, draw by torch.rand")


def draws_from_no_other_generator(subject: Subject) -> None:
    """The generators of Python and NumPy change nothing, and NumPy's is left as it was."""
    images, results = make_images(20), []
    kept, kept_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 – the global generator is the point
    try:
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            before = np.random.get_state()[1].tolist()  # noqa: NPY002 # type: ignore[index]
            results.append(_seeded(subject, images, 0))
            # Python's own moves on where shapes are checked: checkers draw from it.
            same = np.random.get_state()[1].tolist() == before  # noqa: NPY002 # type: ignore[index]
            require(same, "draws from NumPy's generator", "torch.rand")
    finally:
        random.setstate(kept)
        np.random.set_state(kept_numpy)  # noqa: NPY002
    require_equal(results[1], results[0], "draws from a generator that is not torch's", "torch.rand")


def keeps_the_memory_format(subject: Subject) -> None:
    """Images that lie channels-last stay so, and become the same."""
    for channels in (1, 3):
        images = make_images(20, channels)
        last = images.to(memory_format=torch.channels_last)
        changed, changed_last = (_seeded(subject, batch, 0) for batch in (images, last))
        kept = changed.stride() == images.stride() and changed_last.stride() == last.stride()
        require(kept, "changes the memory format", "torch.empty_like(images).copy_(changed)")
        require_close(changed_last, changed, "changes channels-last images in another way", atol=1e-6, rtol=0)


def draws_the_same_in_any_precision(subject: Subject) -> None:
    """Images in float64 and bf16 become those in float32 but for rounding."""
    images = make_images(20, dtype=torch.bfloat16)
    wide = _seeded(subject, images.float(), 0)
    for dtype, error in ((torch.float64, 1e-5), (torch.bfloat16, 1 / 64)):
        changed = _seeded(subject, images.to(dtype), 0).float()
        require_close(changed, wide, f"changes images in {dtype} in another way than in float32", atol=error, rtol=0)


def passes_no_gradient(subject: Subject) -> None:
    """Images that need a gradient become images that need none."""
    changed = subject.make()(make_images().requires_grad_())
    require(not changed.requires_grad, "passes a gradient to the images", "@torch.no_grad()")
    with torch.no_grad():
        require_shape(subject.make()(make_images()), make_images().shape, "images without gradients")


def refuses_bytes(subject: Subject) -> None:
    """Images of whole numbers are refused by an ArgumentError that names their number format."""
    augmentation = subject.make()
    images = (make_images() * 255).to(torch.uint8)
    # Without the types of shapes that tests may check, which would refuse it first.
    call = inspect.unwrap(type(augmentation).__call__)
    pattern = r"^images: must be floating-point numbers.*uint8"
    require_refusal(lambda: call(augmentation, images), pattern, "takes images of bytes")


def follows_another_in_a_sequence(subject: Subject) -> None:
    """In a sequence of augmentations each changes what the one before it gives."""
    apply, flip = lab("data.augmentation._apply", "apply_augmentations"), lab("data.augmentation.flip", "Flip")
    images, both = make_images(), [subject.make(), flip(chance=1.0)]
    torch.manual_seed(0)
    expected = both[1](both[0](images))
    torch.manual_seed(0)
    require_equal(apply(images, both), expected, "gives other images in a sequence of augmentations")


def make_images(
    rows: int = 6, channels: int = 3, height: int = 12, width: int = 10, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Random images, (T, channels, height, width), the same for the same number of rows."""
    generator = torch.Generator().manual_seed(rows)
    return torch.rand(rows, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def _seeded(subject: Subject, images: Tensor, seed: int) -> Tensor:
    augmentation = subject.make()
    torch.manual_seed(seed)
    return augmentation(images)


CHECKS = (
    is_an_augmentation_that_keeps_its_arguments,
    keeps_shape_dtype_and_range,
    takes_tiny_images,
    leaves_its_input_as_it_was,
    changes_something,
    draws_for_each_row,
    changes_a_row_whatever_stands_beside_it,
    changes_nothing_by_an_amount_of_zero,
    draws_the_same_from_the_same_state,
    draws_from_no_other_generator,
    keeps_the_memory_format,
    draws_the_same_in_any_precision,
    passes_no_gradient,
    refuses_bytes,
    follows_another_in_a_sequence,
)
