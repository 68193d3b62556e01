"""The context of rows: side information for gates and experts, the mask of real rows, and row numbers.

The context follows the rows: a mixture inside a mixture reads the values of exactly the rows that were sent to it, also
where modules in between do not pass a context on (`nn.Sequential`).
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

# The name of the mask among the values of `with mb.context(…)`.
MASK_NAME = "mask"


@dataclass(frozen=True)
class Padding:
    """Where the real rows of a batch stand.

    Arguments:
        mask_shape: shape of the mask.
        indices: of the real rows in the flattened mask, (T,).
    """

    mask_shape: torch.Size
    indices: Int[Tensor, " T"]

    def token_indices(self, tokens: int) -> Int[Tensor, " T"]:
        """The indices of the real rows' tokens, where each row is a sequence of `tokens` tokens."""
        return (self.indices.unsqueeze(1) * tokens + torch.arange(tokens, device=self.indices.device)).flatten()

    def restore_rows(self, outputs: Tensor) -> Tensor:
        """Put the outputs of the real rows (T, …) among zeros for the padding: (mask's axes…, …)."""
        all_outputs = outputs.new_zeros(prod(self.mask_shape), *outputs.shape[1:])
        return all_outputs.index_copy(0, self.indices, outputs).unflatten(0, self.mask_shape)


@dataclass(frozen=True)
class RowContext:
    """What is known about the rows of a call besides their input.

    Arguments:
        values: name → tensor, whose first axis is that of the batch for which the values were set.
        value_index: for each row of this call, its entry in `values`; None where the two axes are the same.
        rows: for each row of this call, its number in the outermost batch; None where this is the outermost batch.
        mask: True for real rows, False for padding; None where all rows are real.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    value_index: Int[Tensor, " T"] | None = None
    rows: Int[Tensor, " T"] | None = None
    mask: Bool[Tensor, "..."] | None = None

    def local_values(self) -> dict[str, Tensor]:
        """Name → the values of this call's rows, (T, …)."""
        index = self.value_index
        return {name: value if index is None else value[index] for name, value in self.values.items()}

    def select_rows(self, rows: Int[Tensor, " T"]) -> "RowContext":
        """The context of the rows with these numbers in this call."""
        value_index = rows if self.value_index is None else self.value_index[rows]
        mask = None if self.mask is None else self.mask[rows]
        return RowContext(self.values, value_index, rows if self.rows is None else self.rows[rows], mask)

    def repeat_rows(self, times: int) -> "RowContext":
        """The context in which each row of this one occurs `times` times in succession: as tokens of a sequence."""
        if times == 1 or (self.rows is None and not self.values):
            return self
        value_index = self.value_index
        if value_index is None and self.values:
            value = next(iter(self.values.values()))
            value_index = torch.arange(len(value), device=value.device)
        return RowContext(
            self.values,
            None if value_index is None else value_index.repeat_interleave(times),
            None if self.rows is None else self.rows.repeat_interleave(times),
        )

    def with_values(self, values: Mapping[str, Tensor | None] | None, mask: Tensor | None = None) -> "RowContext":
        """The context with further values and another mask.

        Arguments:
            values: name → tensor, whose first axis is that of this call's rows; the name "mask" sets the mask.
            mask: the mask; None to take that of `values`, or else to keep this context's.

        Raises:
            ArgumentError: `values` is no mapping, or the mask is no tensor of booleans.
        """
        if values is None and mask is None:
            return self
        if values is not None and not isinstance(values, Mapping):
            rule = "needs a mapping of names to tensors: a mixture has one input, other inputs of its parts are context"
            fix = 'moe(x, context={"name": tensor}), for a gate or an expert whose forward has a parameter `context`'
            raise ArgumentError("context", rule, type(values).__name__, fix)
        new_values = dict(values or {})
        named_mask = new_values.pop(MASK_NAME, self.mask)
        mask = named_mask if mask is None else mask
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
            mask_kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            fix = "mask=mask.bool()" if isinstance(mask, Tensor) else "mask=torch.tensor(mask).bool()"
            raise ArgumentError(MASK_NAME, "needs a tensor of truth values, True where a row is real", mask_kind, fix)
        if not new_values:
            return replace(self, mask=mask)
        return replace(self, values={**self.local_values(), **new_values}, value_index=None, mask=mask)

    def remove_padding(self, x: Tensor, row_axes: int | None = None) -> tuple["RowContext", Tensor, Padding | None]:
        """Take the real rows out of a batch.

        Arguments:
            x: rows and padding.
            row_axes: how many of the first axes of x are those of rows; a mask with fewer axes is that of whole
                sequences. None: as many as the mask has.

        Returns:
            The context of the real rows, without a mask; the real rows (T, …); and the padding, whose `restore_rows`
            undoes this. Where the context has no mask: the context and x themselves, and None.

        Raises:
            ArgumentError: the mask's axes are not the first axes of x, or vmap runs over masks.
        """
        mask = self.mask
        if mask is None:
            return self, x, None
        # Floating-point rows end in an axis of features; whole numbers may be rows themselves (token ids).
        most_axes = x.ndim - 1 if x.is_floating_point() and x.ndim > 1 else x.ndim
        most_axes = most_axes if row_axes is None else row_axes
        if not 0 < mask.ndim <= most_axes or mask.shape != x.shape[: mask.ndim]:
            rule = f"needs the batch axes of the mixture's input, of shape {tuple(x.shape)}, which say what a row is"
            fix = "with mb.context(mask=None): …, around what sees other rows"
            raise ArgumentError(MASK_NAME, rule, tuple(mask.shape), fix)
        if is_vmapped(mask):
            rule = "cannot differ under torch.func.vmap, where no shape may depend on values"
            fix = "mask=None under vmap, and the rows without padding"
            raise ArgumentError(MASK_NAME, rule, tuple(mask.shape), fix)
        if row_axes is not None:
            mask = mask.view(*mask.shape, *[1] * (row_axes - mask.ndim)).expand(x.shape[:row_axes])
        padding = Padding(mask.shape, mask.flatten().nonzero().squeeze(1))
        # The values and row numbers of this context belong to the first axis of the mask.
        entries = padding.indices if mask.ndim == 1 else padding.indices // prod(mask.shape[1:])
        value_index = entries if self.value_index is None else self.value_index[entries]
        rows = padding.indices if self.rows is None else self.rows[entries]
        real_context = RowContext(self.values, value_index if self.values else None, rows)
        return real_context, x.flatten(0, mask.ndim - 1).index_select(0, padding.indices), padding


class ThreadValue(threading.local):
    """A value that each thread sets for itself: like a ContextVar, but torch.compile can follow it."""

    def __init__(self, value: Any):
        self.value = value


_active_context = ThreadValue(RowContext())


def current_context() -> RowContext:
    """The context of the rows of the call that runs now."""
    return _active_context.value


def calling_context(part: nn.Module) -> RowContext:
    """The context that a part is called in; where an activation checkpoint repeats the call, that of its first run."""
    context = current_context()
    return replayed_value((id(part), "context"), context, bool(context.values) or context.mask is not None)


@contextmanager
def row_context(rows_context: RowContext) -> Iterator[None]:
    """Make `rows_context` the current context inside the block."""
    if rows_context is _active_context.value:
        # Compilers of checkpointed code refuse to set a value, even the same.
        yield
        return
    previous, _active_context.value = _active_context.value, rows_context
    try:
        yield
    finally:
        _active_context.value = previous


@contextmanager
def context(**values: Tensor | None) -> Iterator[None]:
    """Give side information to every mixture that is called inside the block.

    A call that activation checkpointing repeats in backward reads the same values again, even after the block has
    ended.

    Arguments:
        values: tensors whose first axis is the batch's (the images', not the tokens'). The name `mask` sets which rows
            are real: booleans with the batch axes of the mixtures' inputs, or None to end an outer mask.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Domain(2, 2), [torch.nn.Identity(), torch.nn.Flatten()])
        >>> with mb.context(domain=torch.tensor([0, 1, 1])):
        ...     y = moe(torch.zeros(3, 4))
    """
    with row_context(current_context().with_values(values)):
        yield


def takes_context(kind: type[nn.Module]) -> bool:
    """Whether the forward of modules of this class has a parameter `context`.

    Example:
        >>> import moebius as mb
        >>> takes_context(mb.gates.Domain), takes_context(nn.Linear)
        (True, False)
    """
    return _context_parameter(kind) != "none"


def call_with_context(module: nn.Module, x: Tensor) -> Any:
    """Call a gate or an expert with the rows of this call, and with their local values if its forward takes a context.

    Where there are no values, a parameter `context` that has a default keeps it.
    """
    unwrapped = module
    while type(unwrapped).__name__ in _WRAPPERS:
        unwrapped = getattr(unwrapped, _WRAPPERS[type(unwrapped).__name__])
    parameter = _context_parameter(type(unwrapped))
    context = current_context()
    if parameter == "none" or (parameter == "optional" and not context.values):
        return module(x)
    return module(x, context=context.local_values())


# Class names of wrappers whose forward takes any arguments → the attribute that holds the wrapped module.
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module"}
_CONTEXT_PARAMETERS: dict[type[nn.Module], str] = {}


def _context_parameter(kind: type[nn.Module]) -> str:
    """Whether the parameter `context` of a class's forward is "required", "optional", or "none" exists."""
    if kind not in _CONTEXT_PARAMETERS:
        try:
            parameter = inspect.signature(kind.forward).parameters.get("context")
        except (TypeError, ValueError):  # a compiled forward may have no signature
            parameter = None
        _CONTEXT_PARAMETERS[kind] = (
            "none" if parameter is None else "required" if parameter.default is parameter.empty else "optional"
        )
    return _CONTEXT_PARAMETERS[kind]


# A compiler evaluates this while it traces, and does not follow `inspect`.
_context_parameter._dynamo_marked_constant = True  # type: ignore[attr-defined]
