"""A network that was made for something else, as an expert or a gate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.module_outputs import adapter_line, describe_output
from moebius.core.output_cache import cached_outputs
from moebius.core.row_context import call_with_context
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "softmax": lambda y: y.softmax(-1),
    "log_softmax": lambda y: y.log_softmax(-1),
    "sigmoid": torch.sigmoid,
    "log": torch.log,
}
# What an output that is no logit says of a class that the network does not know: no probability.
_PROBABILITIES = ("softmax", "sigmoid")
# ITU-R 601, as Pillow converts.
_LUMA = (0.299, 0.587, 0.114)


class Adapter(nn.Module):
    """Any network between an input transform and an output map, frozen or not.

    y = fill everywhere, but y[classes] = a(network(t(x)))

    t makes the images as large and as colourful as the network was built for, and then what `transform` says; a makes
    the outputs what the mixture mixes, such as logits or probabilities; the map puts the output of a network that knows
    n classes into the C of the mixture. A network with C outputs that was trained on some classes alone keeps them all.

    A frozen network is never updated, and is in eval whatever `train()` says: its batch normalisation keeps its
    statistics, its dropout is off. While a mixture trains without augmentation, what it says of a row is computed once.

    Arguments:
        network: the module that computes.
        size: height and width of the images that it wants, in pixels (bilinear, antialiased); None as they come.
        channels: how many it wants, 1 or 3: three grey ones are alike, grey is ITU-R 601; None as they come.
        transform: what else to do with the input: a module or a function.
        classes: the classes that it knows, as positions 0 … C−1 among the mixture's; None for all.
        total: C, needed where the network has an output for each of its own classes only.
        fill: what it says of a class that it does not know; None for probability 0, which for logits is −inf.
        output: which part of what the network gives is its output, where that is no tensor: a name ("logits", of a
            mapping or of a transformers' output), a place in a tuple, or a function; None for the whole.
        activation: a, one of none, softmax, log_softmax, sigmoid, log (for a network that gives probabilities where
            logits are wanted).
        frozen: whether the network stays as it is.

    Shapes: whatever the network takes → (T, n) or (T, C) as it gives, (T, C) with a map.

    Raises:
        ArgumentError: an unknown activation, classes that differ not or are out of range, a network that gives no
            tensor where `output` looks, or one whose outputs are neither one per own class nor one per class of the
            mixture.

    Example:
        >>> cats_and_dogs = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> expert = Adapter(cats_and_dogs, size=4, channels=1, classes=[3, 5], total=10, frozen=True)
        >>> expert(torch.zeros(2, 3, 32, 32)).softmax(-1).count_nonzero(-1)
        tensor([2, 2])

    Reference: ours.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int | None = None,
        channels: int | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        classes: Sequence[int] | None = None,
        total: int | None = None,
        fill: float | int | None = None,
        activation: str = "none",
        frozen: bool = False,
        output: str | int | Callable[[Any], Tensor] | None = None,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ArgumentError("activation", f"needs one of {', '.join(ACTIVATIONS)}", activation, "activation: none")
        if channels not in (None, 1, 3):
            raise ArgumentError("channels", "needs 1 or 3", channels, "channels: 3")
        self.network, self.transform = network, transform
        self.size = None if size is None else positive_integer("size", size)
        self.channels = channels
        self.total = None if total is None else positive_integer("total", total)
        self.classes = None if classes is None else _checked(classes, self.total)
        self.fill, self.activation, self.output = fill, activation, output
        self.frozen, self.mode = False, self.training
        if frozen:
            self.freeze()

    def freeze(self, frozen: bool = True) -> "Adapter":
        """Freeze the network (and a transform that is a module), or let it train; returns itself."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        return self.train(self.mode)

    def train(self, mode: bool = True) -> "Adapter":
        """Training or evaluation mode; what is frozen is in evaluation mode always."""
        self.mode = mode
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """What the network says of each row, put as the mixture wants it."""
        known = cached_outputs(self, x.shape[0]) if self.frozen else None
        return self._said(x) if known is None else known

    def extra_repr(self) -> str:
        """What tells two adapters apart."""
        names = ("size", "channels", "classes", "total", "fill", "activation", "frozen", "output")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name) not in (None, "none"))

    def _said(self, x: Tensor) -> Tensor:
        y = self._picked(call_with_context(self.network, self._input(x)), len(x))
        return self._mapped(ACTIVATIONS[self.activation](y))

    def _picked(self, given: Any, rows: int) -> Tensor:
        y, output = given, self.output
        try:
            if callable(output):
                y = output(given)
            elif output is not None:
                y = given[output] if isinstance(output, int) or isinstance(given, Mapping) else getattr(given, output)
        except (LookupError, AttributeError, TypeError) as error:
            rule = (
                f"names no part of what the network, a {type(self.network).__name__}, gives, {describe_output(given)}"
            )
            raise ArgumentError("output", rule, output, adapter_line("network", given, rows)) from error
        if not isinstance(y, Tensor):
            rule = f"must pick one tensor of what the network, a {type(self.network).__name__}, gives"
            raise ArgumentError("output", rule, describe_output(y), adapter_line("network", given, rows))
        return y

    def _input(self, x: Tensor) -> Any:
        if self.channels is not None and x.shape[1] != self.channels:
            x = _grey(x) if self.channels == 1 else _coloured(x)
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return x if self.transform is None else self.transform(x)

    def _mapped(self, y: Tensor) -> Tensor:
        if self.classes is None:
            return y
        if y.shape[-1] != len(self.classes):
            if self.total is None or y.shape[-1] == self.total:
                return y
            rule = f"must have an output for each of {len(self.classes)} classes that it knows, or of all {self.total}"
            raise ArgumentError("network", rule, y.shape[-1], "classes=…, one for each output")
        if self.total is None:
            rule = "is needed for a network that has an output for each of its own classes only"
            raise ArgumentError("total", rule, None, f"total={max(self.classes) + 1}, the classes of the mixture")
        fill = self.fill
        if fill is None:
            fill = 0.0 if self.activation in _PROBABILITIES else -torch.inf
        places = torch.tensor(self.classes, device=y.device)
        return y.new_full((*y.shape[:-1], self.total), fill).index_copy(-1, places, y)


def _coloured(x: Tensor) -> Tensor:
    if x.shape[1] != 1:
        raise ArgumentError("x", "can be made colourful where it has 1 channel", tuple(x.shape))
    return x.expand(-1, 3, *x.shape[2:])


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        raise ArgumentError("x", "can be made grey where it has 3 channels", tuple(x.shape))
    return torch.einsum("tchw,c->thw", x, x.new_tensor(_LUMA)).unsqueeze(1)


def _checked(classes: Sequence[int], total: int | None) -> tuple[int, ...]:
    known = tuple(classes)
    if not known or len(set(known)) < len(known):
        raise ArgumentError("classes", "needs positions of classes that differ", list(known), "classes: [0, 8]")
    if min(known) < 0 or (total is not None and max(known) >= total):
        most = "" if total is None else f" … {total - 1}"
        raise ArgumentError("classes", f"needs positions of classes, 0{most}", list(known))
    return known
