"""Side information for gates and experts that want it, which rows are real, and their place in the outermost batch.

All follow the rows: a mixture inside a mixture finds the values of just the rows that were sent to it, also through
modules in between that know nothing of them (`nn.Sequential`).
"""

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from moebius.core.activation_checkpointing import replayed_value
from moebius.core.transforms import is_vmapped
from moebius.kit.errors import ArgumentError

# The name of the mask among values that are given together.
MASK = "mask"


@dataclass(frozen=True)
class Padding:
    """Where the real rows of a batch stand.

    Arguments:
        shape: of the mask.
        places: of the real rows, in its flattened form.
    """

    shape: torch.Size
    places: Int[Tensor, " T"]

    def rows(self, times: int) -> Int[Tensor, " T"]:
        """The places of rows that are each `times` rows of the mask's: the tokens of sequences."""
        return (self.places.unsqueeze(1) * times + torch.arange(times, device=self.places.device)).flatten()

    def put_back(self, y: Tensor) -> Tensor:
        """The outputs of the real rows (T, …) among zeros, (mask's axes…, …)."""
        whole = y.new_zeros(prod(self.shape), *y.shape[1:])
        return whole.index_copy(0, self.places, y).unflatten(0, self.shape)


@dataclass(frozen=True)
class RowContext:
    """What is known about the rows of one call.

    Arguments:
        values: tensors whose first axis is that of the batch they were given for.
        index: for each row of this call, its entry in `values`; None when they are the same.
        rows: for each row of this call, its place in the outermost batch; None when this is it.
        mask: True for the rows that are real, False for padding; None when all are.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    index: Int[Tensor, " T"] | None = None
    rows: Int[Tensor, " T"] | None = None
    mask: Bool[Tensor, "..."] | None = None

    def local(self) -> dict[str, Tensor]:
        """The values of just this call's rows."""
        return {name: value if self.index is None else value[self.index] for name, value in self.values.items()}

    def at(self, rows: Int[Tensor, " T"]) -> "RowContext":
        """The frame of the rows with these numbers."""
        index = rows if self.index is None else self.index[rows]
        return RowContext(self.values, index, rows if self.rows is None else self.rows[rows])

    def repeated(self, times: int) -> "RowContext":
        """The frame of rows that are each `times` rows of this one: the tokens of sequences."""
        if times == 1 or (self.rows is None and not self.values):
            return self
        index = self.index
        if index is None and self.values:
            value = next(iter(self.values.values()))
            index = torch.arange(len(value), device=value.device)
        return RowContext(
            self.values,
            None if index is None else index.repeat_interleave(times),
            None if self.rows is None else self.rows.repeat_interleave(times),
        )

    def given(self, values: Mapping[str, Tensor | None] | None, mask: Tensor | None = None) -> "RowContext":
        """The frame with further values, whose first axis is that of this call's rows, and another mask.

        Raises:
            ArgumentError: values that are no mapping, or a mask that is not of truth values.
        """
        if values is None and mask is None:
            return self
        if values is not None and not isinstance(values, Mapping):
            rule = (
                "needs a mapping of names to tensors: a mixture has one input, and what else its parts read is context"
            )
            fix = 'moe(x, context={"name": tensor}), for a gate or an expert whose forward has a parameter `context`'
            raise ArgumentError("context", rule, type(values).__name__, fix)
        more = dict(values or {})
        named = more.pop(MASK, self.mask)
        mask = named if mask is None else mask
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
            value = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            fix = "mask=mask.bool()" if isinstance(mask, Tensor) else "mask=torch.tensor(mask).bool()"
            raise ArgumentError(MASK, "needs a tensor of truth values, True where a row is real", value, fix)
        if not more:
            return replace(self, mask=mask)
        return replace(self, values={**self.local(), **more}, index=None, mask=mask)

    def real(self, x: Tensor, axes: int | None = None) -> tuple["RowContext", Tensor, Padding | None]:
        """Without padding: the frame and the real rows, one beneath another, and what puts their outputs back.

        Arguments:
            x: rows and padding.
            axes: how many of the first axes of x are those of rows; a mask of fewer is that of whole sequences. Where
                it is not known, as many as the mask has.

        Raises:
            ArgumentError: the mask's axes are not the first ones of the rows, or vmap goes over masks.
        """
        mask = self.mask
        if mask is None:
            return self, x, None
        # Whole numbers may be names of rows, without an axis of features.
        most = x.ndim - 1 if x.is_floating_point() and x.ndim > 1 else x.ndim
        most = most if axes is None else axes
        if not 0 < mask.ndim <= most or mask.shape != x.shape[: mask.ndim]:
            rule = f"needs the batch axes of the mixture's input, of shape {tuple(x.shape)}, which say what a row is"
            fix = "with mb.context(mask=None): …, around what sees other rows"
            raise ArgumentError(MASK, rule, tuple(mask.shape), fix)
        if is_vmapped(mask):
            rule = "cannot differ under torch.func.vmap, where no shape may depend on values"
            raise ArgumentError(MASK, rule, tuple(mask.shape), "mask=None under vmap, and the rows without padding")
        if axes is not None:
            mask = mask.view(*mask.shape, *[1] * (axes - mask.ndim)).expand(x.shape[:axes])
        padding = Padding(mask.shape, mask.flatten().nonzero().squeeze(1))
        of_batch = padding.places if mask.ndim == 1 else padding.places // prod(mask.shape[1:])
        index = of_batch if self.index is None else self.index[of_batch]
        rows = padding.places if self.rows is None else self.rows[of_batch]
        frame = RowContext(self.values, index if self.values else None, rows)
        return frame, x.flatten(0, mask.ndim - 1).index_select(0, padding.places), padding


class ThreadValue(threading.local):
    """A value for the blocks that this thread is in: a ContextVar, but one that torch.compile can follow."""

    def __init__(self, value: Any):
        self.value = value


_current = ThreadValue(RowContext())


def current_context() -> RowContext:
    """The frame of the call that is under way."""
    return _current.value


def context_around(part: nn.Module) -> RowContext:
    """The frame that a part is called in; where an activation checkpoint repeats the call, that of the first time."""
    frame = current_context()
    return replayed_value((id(part), "frame"), frame, bool(frame.values) or frame.mask is not None)


@contextmanager
def row_context(frame: RowContext) -> Iterator[None]:
    """Make `frame` the current one inside the block."""
    if frame is _current.value:
        # Compilers of checkpointed code refuse to set a value, even the same.
        yield
        return
    before, _current.value = _current.value, frame
    try:
        yield
    finally:
        _current.value = before


@contextmanager
def context(**values: Tensor | None) -> Iterator[None]:
    """Give side information to every mixture called inside the block.

    What activation checkpoints inside the block repeat in backward sees the same values again, also where the block has
    ended by then.

    Arguments:
        values: tensors whose first axis is the batch's (the images', not the tokens'). The name `mask` stands for which
            rows are real: truth values with the batch axes of the mixtures' inputs, or None to end an outer mask.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Domain(2, 2), [torch.nn.Identity(), torch.nn.Flatten()])
        >>> with mb.context(domain=torch.tensor([0, 1, 1])):
        ...     y = moe(torch.zeros(3, 4))
    """
    with row_context(current_context().given(values)):
        yield


def takes_context(kind: type[nn.Module]) -> bool:
    """Whether the forward of modules of this class has a parameter `context`.

    Example:
        >>> import moebius as mb
        >>> takes_context(mb.gates.Domain), takes_context(nn.Linear)
        (True, False)
    """
    return _context_of(kind) != "none"


def call_with_context(module: nn.Module, x: Tensor) -> Any:
    """What a gate or an expert says of the rows of this call; one that takes context is given that of its rows.

    Where there is none, a parameter with a default keeps it.
    """
    inner = module
    while type(inner).__name__ in _WRAPPERS:
        inner = getattr(inner, _WRAPPERS[type(inner).__name__])
    wants = _context_of(type(inner))
    frame = current_context()
    if wants == "none" or (wants == "optional" and not frame.values):
        return module(x)
    return module(x, context=frame.local())


# Wrappers whose forward has any parameters, and where they keep what they wrap.
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module"}
_CONTEXTS: dict[type[nn.Module], str] = {}


def _context_of(kind: type[nn.Module]) -> str:
    """Whether a parameter `context` is "required", "optional", or "none" is there."""
    if kind not in _CONTEXTS:
        try:
            parameter = inspect.signature(kind.forward).parameters.get("context")
        except (TypeError, ValueError):  # a compiled forward may have no signature
            parameter = None
        wants = "none" if parameter is None else "required" if parameter.default is parameter.empty else "optional"
        _CONTEXTS[kind] = wants
    return _CONTEXTS[kind]


# A compiler shall ask while it traces, and not follow `inspect`.
_context_of._dynamo_marked_constant = True  # type: ignore[attr-defined]
