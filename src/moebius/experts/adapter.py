"""The expert, or gate, that wraps a network made for another purpose."""

import math
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
# Activations whose values are probabilities: a class that the network does not know gets 0, among logits −inf.
_PROBABILITIES = ("softmax", "sigmoid")
# Weights of red, green and blue by ITU-R 601, as in Pillow.
_LUMA = (0.299, 0.587, 0.114)


class Adapter(nn.Module):
    """Any network between an input transform and an output map, frozen or not.

    y[classes] = a(network(t(x))), and y = fill for all other classes

    t converts the images to the size and channels of the network, and then applies `transform`; a converts the outputs
    to what the mixture mixes, such as logits or probabilities; the map places the outputs of a network with n classes
    among the C classes of the mixture. A network with C outputs that was trained on some classes only keeps them all.

    With `others` the network has one output more, the last, for "none of my classes". The adapter then gives
    log-probabilities of all C classes, or probabilities after softmax or sigmoid: those of the network's n classes, and
    the probability of "none of mine" in equal parts for the C − n other classes:

    log p(c) = log p(none of mine) − log(C − n), for c not in classes

    `kept_classes` goes the other way: of a network of all classes it makes one with an output for each of these, and
    one for all others, log Σ_c exp(y_c) over the rest, whose probability is theirs together.

    A frozen network is never updated, and stays in eval mode after `train()`: its batch normalisation keeps its
    statistics, its dropout is off. While a mixture trains without augmentation, its output for a row is computed once.

    Arguments:
        network: the wrapped module.
        size: height and width of the network's images, in pixels (resized bilinearly, antialiased); None to keep the
            size.
        channels: the network's number of channels, 1 or 3: grey images are repeated, colour images are converted by
            ITU-R 601; None to keep the channels.
        transform: a further transform of the input, a module or a function.
        classes: the network's classes, as positions 0 … C−1 among those of the mixture; None for all.
        total: C, needed where the network has outputs only for `classes`.
        fill: the output for all other classes; None for probability 0, which for logits is −inf.
        output: which part of the network's result is its output, if that is not a tensor: a name ("logits", of a
            mapping or of a transformers output), an index of a tuple, or a function; None for the whole result.
        activation: a, one of none, softmax, log_softmax, sigmoid, log (for a network that gives probabilities where
            logits are needed).
        frozen: whether the network's parameters and statistics are fixed.
        others: whether the network's last output, after those of `classes`, stands for all other classes together.
        kept_classes: positions of the network's outputs that stay, before one for all others; None for all as they are.

    Shapes: any input of the network → (T, n) or (T, C), as the network gives; with `classes` (T, C).

    Raises:
        ArgumentError: an unknown activation, classes that repeat or are out of range, a part named by `output` that is
            missing or not a tensor, or a network that has neither an output for each of `classes` nor C outputs;
            `others` without `classes` and `total`, with a `fill`, or where there are no other classes; `kept_classes`
            beside `classes`, or with an activation that gives probabilities.

    Example:
        >>> cats_and_dogs = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> expert = Adapter(cats_and_dogs, size=4, channels=1, classes=[3, 5], total=10, frozen=True)
        >>> expert(torch.zeros(2, 3, 32, 32)).softmax(-1).count_nonzero(-1)
        tensor([2, 2])
        >>> modest = nn.Linear(16, 3)  # cat, dog, neither
        >>> expert = Adapter(modest, classes=[3, 5], total=10, others=True)
        >>> expert(torch.zeros(2, 16)).exp().sum(-1).allclose(torch.ones(2))
        True

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
        others: bool = False,
        kept_classes: Sequence[int] | None = None,
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
        self.classes = None if classes is None else _check_classes(classes, self.total)
        self.fill, self.activation, self.output, self.others = fill, activation, output, others
        if others:
            _check_others(self.classes, self.total, fill)
        self.kept_classes = None if kept_classes is None else _check_classes(kept_classes, None)
        if kept_classes is not None and (classes is not None or activation in _PROBABILITIES):
            rule, value = "cannot stand beside classes, or outputs that are probabilities", list(kept_classes)
            raise ArgumentError("kept_classes", rule, value, "classes=None, activation='log_softmax'")
        self.frozen, self.mode = False, self.training
        if frozen:
            self.freeze()

    def freeze(self, frozen: bool = True) -> "Adapter":
        """Freeze the network, and a transform that is a module, or let them train; returns itself."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        return self.train(self.mode)

    def train(self, mode: bool = True) -> "Adapter":
        """Set training or evaluation mode; a frozen adapter stays in evaluation mode."""
        self.mode = mode
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """The network's output for each row, in the form that the mixture takes."""
        outputs = cached_outputs(self, x.shape[0]) if self.frozen else None
        return self._compute(x) if outputs is None else outputs

    def extra_repr(self) -> str:
        """The arguments that are not the default."""
        names = (
            "size",
            "channels",
            "classes",
            "total",
            "fill",
            "activation",
            "frozen",
            "output",
            "others",
            "kept_classes",
        )
        values = {name: getattr(self, name) for name in names}
        if not self.others:
            del values["others"]
        return ", ".join(f"{name}={value}" for name, value in values.items() if value not in (None, "none"))

    def _compute(self, x: Tensor) -> Tensor:
        y = self._select_output(call_with_context(self.network, self._convert_input(x)), len(x))
        return self._map_classes(ACTIVATIONS[self.activation](y))

    def _select_output(self, result: Any, rows: int) -> Tensor:
        """The part of the network's result that `output` names."""
        y, output = result, self.output
        try:
            if callable(output):
                y = output(result)
            elif output is not None:
                has_items = isinstance(output, int) or isinstance(result, Mapping)
                y = result[output] if has_items else getattr(result, str(output))
        except (LookupError, AttributeError, TypeError) as error:
            rule = (
                f"names no part of what the network, a {type(self.network).__name__}, gives, {describe_output(result)}"
            )
            raise ArgumentError("output", rule, output, adapter_line("network", result, rows)) from error
        if not isinstance(y, Tensor):
            rule = f"must pick one tensor of what the network, a {type(self.network).__name__}, gives"
            raise ArgumentError("output", rule, describe_output(y), adapter_line("network", result, rows))
        return y

    def _convert_input(self, x: Tensor) -> Any:
        """The rows with the network's channels and size, after `transform`."""
        if self.channels is not None and x.shape[1] != self.channels:
            x = _to_grey(x) if self.channels == 1 else _to_colour(x)
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return x if self.transform is None else self.transform(x)

    def _map_classes(self, y: Tensor) -> Tensor:
        """The outputs placed at `classes` among the C classes of the mixture."""
        if self.kept_classes is not None:
            return self._merge_others(y)
        if self.classes is None:
            return y
        if self.others:
            return self._spread_others(y)
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
        positions = torch.tensor(self.classes, device=y.device)
        return y.new_full((*y.shape[:-1], self.total), fill).index_copy(-1, positions, y)

    def _merge_others(self, y: Tensor) -> Tensor:
        """The outputs of the kept classes, and log Σ exp of all others."""
        assert self.kept_classes is not None
        rest = [position for position in range(y.shape[-1]) if position not in self.kept_classes]
        if not rest or max(self.kept_classes) >= y.shape[-1]:
            rule = f"must have outputs for the classes {list(self.kept_classes)}, and for others"
            raise ArgumentError("network", rule, y.shape[-1], "kept_classes=None")
        kept, merged = y[..., list(self.kept_classes)], y[..., rest].logsumexp(-1, keepdim=True)
        return torch.cat([kept, merged], -1)

    def _spread_others(self, y: Tensor) -> Tensor:
        """Own classes in their places, and the last output in equal parts for all others."""
        assert self.classes is not None
        assert self.total is not None
        if y.shape[-1] != len(self.classes) + 1:
            rule = f"must have an output for each of {len(self.classes)} classes, and one for all others"
            raise ArgumentError("network", rule, y.shape[-1], "others=False, or a network with one output more")
        rest = self.total - len(self.classes)
        if self.activation in _PROBABILITIES:
            share = y[..., -1:] / rest
        else:
            y = y.log_softmax(-1)
            share = y[..., -1:] - math.log(rest)
        positions = torch.tensor(self.classes, device=y.device)
        return share.repeat(*[1] * (y.ndim - 1), self.total).index_copy(-1, positions, y[..., :-1])


def _to_colour(x: Tensor) -> Tensor:
    if x.shape[1] != 1:
        raise ArgumentError("x", "becomes 3 channels only from 1 channel", tuple(x.shape), "channels=None")
    return x.expand(-1, 3, *x.shape[2:])


def _to_grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        raise ArgumentError("x", "becomes 1 channel only from 3 channels", tuple(x.shape), "channels=None")
    return torch.einsum("tchw,c->thw", x, x.new_tensor(_LUMA)).unsqueeze(1)


def _check_classes(classes: Sequence[int], total: int | None) -> tuple[int, ...]:
    positions = tuple(classes)
    if not positions or len(set(positions)) < len(positions):
        raise ArgumentError("classes", "needs positions of classes that differ", list(positions), "classes: [0, 8]")
    if min(positions) < 0 or (total is not None and max(positions) >= total):
        rule = "needs positions of classes, at least 0" if total is None else f"needs positions from 0 to {total - 1}"
        fix = "classes: [0, 8]" if total is None or min(positions) < 0 else f"total: {max(positions) + 1}"
        raise ArgumentError("classes", rule, list(positions), fix)
    return positions


def _check_others(classes: tuple[int, ...] | None, total: int | None, fill: float | int | None) -> None:
    if classes is None or total is None:
        rule = "needs the network's own classes, and the number of all"
        raise ArgumentError("others", rule, {"classes": classes, "total": total}, "classes=[3, 5], total=10")
    if fill is not None:
        rule = "cannot stand beside others, which gives all other classes their probability"
        raise ArgumentError("fill", rule, fill, "fill=None")
    if len(classes) == total:
        rule = f"needs classes beside those of the network, which are all {total}"
        raise ArgumentError("others", rule, True, "others=False")
