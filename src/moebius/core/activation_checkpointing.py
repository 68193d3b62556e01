"""What a forward can tell about activation checkpointing around it, which runs the same rows twice.

Non-reentrant checkpointing runs a block with a graph, throws the graph's tensors away, and runs the block again in
backward to recompute them. Reentrant checkpointing runs the block inside an autograd function without a graph, and
again in backward with a graph. Side effects of a forward (counts, records) belong to the first run only.
"""

import sys
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch.autograd.function import FunctionCtx


def is_replay() -> bool:
    """Whether this forward repeats an earlier one: it runs in a backward, which recomputes a checkpoint's tensors.

    False in compiled code, which cannot ask at run time.

    Example:
        >>> is_replay()
        False
    """
    return backward_number() != -1


def backward_number() -> int:
    """The number of the backward pass that this code runs in; −1 outside of backward passes and in compiled code.

    Example:
        >>> backward_number()
        -1
    """
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


def replayed_value(key: Hashable, value: Any, is_set: bool) -> Any:
    """In a replay the value that the first run of the same forward saw; otherwise `value` itself.

    A forward is repeated in backward, when blocks around it (`with mb.context(…)`) may have ended, and on a GPU by
    another thread. So a checkpoint records the values that forwards inside it saw. Its replay gets these again: for
    each key the first call gets the first value, the second call the second, and so on.

    Arguments:
        key: which value this is, of which module.
        value: the present value.
        is_set: whether the value differs from its default and has to be recorded. Looking for checkpoints takes time.

    Example:
        >>> replayed_value("key", "present", True)
        'present'
    """
    if torch.compiler.is_compiling() or not (is_set or is_replay()):
        return value
    checkpoints = list(_enclosing_checkpoints())
    replay = next((record for record, is_replayed in checkpoints if is_replayed), None)
    if replay is not None:
        calls = replay.calls.setdefault(backward_number(), Counter())
        recorded = replay.values.get(key, [])
        value = recorded[calls[key]] if calls[key] < len(recorded) else value
        calls[key] += 1
    for record, is_replayed in checkpoints:
        if is_replayed:
            break
        record.values.setdefault(key, []).append(value)
    return value


class _CheckpointRecord:
    """The values that forwards inside one activation checkpoint saw.

    Attributes:
        values: key → the values of its calls, in order.
        calls: number of a backward pass → key → how many calls that pass has replayed.
    """

    def __init__(self):
        self.values: dict[Hashable, list[Any]] = {}
        self.calls: dict[int, Counter[Hashable]] = {}


def _enclosing_checkpoints() -> Iterator[tuple[_CheckpointRecord, bool]]:
    """The activation checkpoints that this code runs in, the innermost first.

    Yields:
        The checkpoint's record, and whether this code is a replay of the checkpoint.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code, checkpoint = frame.f_code, None
        if code.co_name in ("forward", "backward"):
            ctx = frame.f_locals.get("ctx") if "ctx" in code.co_varnames else None
            checkpoint = ctx if isinstance(ctx, FunctionCtx) else None
        elif frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            # Private to torch: the object that its hooks for saved tensors share.
            if code.co_name == "unpack_hook":
                checkpoint = frame.f_locals.get("frame")
            elif code.co_name == "checkpoint":
                generator_frame = getattr(frame.f_locals.get("gen"), "gi_frame", None)
                checkpoint = generator_frame and generator_frame.f_locals.get("new_frame")
        if checkpoint is not None:
            if not hasattr(checkpoint, _RECORD_ATTRIBUTE):
                setattr(checkpoint, _RECORD_ATTRIBUTE, _CheckpointRecord())
            yield getattr(checkpoint, _RECORD_ATTRIBUTE), code.co_name in ("backward", "unpack_hook")
        frame = frame.f_back


_RECORD_ATTRIBUTE = "_moebius_record"


def will_be_replayed() -> bool:
    """Whether this forward has no graph because backward will repeat it with one: reentrant checkpointing's first run.

    Example:
        >>> with torch.no_grad():
        ...     will_be_replayed()
        False
    """
    return any(ctx.next_functions for ctx in _enclosing_functions())


def loses_graph() -> bool:
    """Whether this forward has no graph although the code around it may want gradients.

    This holds in reentrant checkpointing's first run, even where no input of the block requires gradients: then
    nothing in the block is trained, and torch only warns. False where gradients are switched off around the
    checkpoint, as far as that can be told.
    """
    functions = _enclosing_functions()
    if any(ctx.next_functions for ctx in functions):
        return True
    return bool(functions) and not any(any(ctx.needs_input_grad) for ctx in functions)


def is_checkpointed() -> bool:
    """Whether an activation checkpoint around this forward throws away what it saves for backward.

    Example:
        >>> is_checkpointed()
        False
    """
    return not torch.compiler.is_compiling() and next(_enclosing_checkpoints(), None) is not None


def _enclosing_functions() -> list[Any]:
    """The contexts of the autograd functions whose forward runs now, the innermost first."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return []
    contexts = []
    frame = sys._getframe(1)
    while frame is not None:
        # The name is checked first, because reading a frame's variables copies all of them.
        ctx = frame.f_locals.get("ctx") if "ctx" in frame.f_code.co_varnames else None
        if isinstance(ctx, FunctionCtx):
            contexts.append(ctx)
        frame = frame.f_back
    return contexts
