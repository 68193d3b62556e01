"""Activation checkpointing, seen from inside a forward: the same rows come by twice, with a graph only once.

Non-reentrant checkpointing runs a block with a graph whose tensors it throws away, and runs it again in backward for
their values. Reentrant checkpointing runs it inside an autograd function, without a graph, and again in backward with
one. What a forward leaves behind (counts, records) belongs to the first of both.
"""

import sys
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch.autograd.function import FunctionCtx


def is_replay() -> bool:
    """Whether this forward repeats an earlier one: it happens in a backward, for the tensors of activation checkpoints.

    False in compiled code, which cannot ask at run time.

    Example:
        >>> is_replay()
        False
    """
    return backward_under_way() != -1


def backward_under_way() -> int:
    """The number of the backward pass that this code runs in; -1 for none, and in compiled code.

    Example:
        >>> backward_under_way()
        -1
    """
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


def replayed_value(key: Hashable, value: Any, matters: bool) -> Any:
    """A value that comes from around a forward, as it was when activation checkpoints ran this the first time.

    A forward is repeated in backward, when blocks that were around it (`with mb.context(…)`) may have ended, and on a
    GPU by another thread. So a checkpoint keeps what a forward inside saw, and its replay is given that again: of each
    key the first value for the first call, and so on.

    Arguments:
        key: who asks for what.
        value: as it is now.
        matters: whether it is more than nothing, so that it has to be kept. To look for checkpoints takes time.

    Example:
        >>> replayed_value("who", "now", True)
        'now'
    """
    if torch.compiler.is_compiling() or not (matters or is_replay()):
        return value
    checkpoints = list(_checkpoints_around())
    repeated = next((kept for kept, repeats in checkpoints if repeats), None)
    if repeated is not None:
        task = backward_under_way()
        place = repeated.counts.setdefault(task, Counter())
        values = repeated.values.get(key, [])
        value = values[place[key]] if place[key] < len(values) else value
        place[key] += 1
    for kept, repeats in checkpoints:
        if repeats:
            break
        kept.values.setdefault(key, []).append(value)
    return value


class _Kept:
    """What forwards inside of one activation checkpoint saw, and how far each backward pass has come with it."""

    def __init__(self):
        self.values: dict[Hashable, list[Any]] = {}
        self.counts: dict[int, Counter[Hashable]] = {}


def _checkpoints_around() -> Iterator[tuple[_Kept, bool]]:
    """What is kept of the activation checkpoints that this code runs in, innermost first; whether that repeats it."""
    frame = sys._getframe(1)
    while frame is not None:
        code, found = frame.f_code, None
        if code.co_name in ("forward", "backward"):
            context = frame.f_locals.get("ctx") if "ctx" in code.co_varnames else None
            found = context if isinstance(context, FunctionCtx) else None
        elif frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            # Private to torch: what its hooks for saved tensors hold on to.
            if code.co_name == "unpack_hook":
                found = frame.f_locals.get("frame")
            elif code.co_name == "checkpoint" and (inner := getattr(frame.f_locals.get("gen"), "gi_frame", None)):
                found = inner.f_locals.get("new_frame")
        if found is not None:
            if not hasattr(found, _NAME):
                setattr(found, _NAME, _Kept())
            yield getattr(found, _NAME), code.co_name in ("backward", "unpack_hook")
        frame = frame.f_back


_NAME = "_kept_by_moebius"


def will_be_replayed() -> bool:
    """Whether this forward has no graph because backward will repeat it with one: reentrant checkpointing's first pass.

    Example:
        >>> with torch.no_grad():
        ...     will_be_replayed()
        False
    """
    return any(context.next_functions for context in _functions_around())


def loses_graph() -> bool:
    """Whether this forward has no graph although the code around it may want gradients.

    So it is in reentrant checkpointing's first pass, also where no input of the block requires gradients: then nothing
    in the block is trained, of which torch only warns. False where gradients are switched off around the checkpoint,
    as far as that can be known.
    """
    contexts = _functions_around()
    if any(context.next_functions for context in contexts):
        return True
    return bool(contexts) and not any(any(context.needs_input_grad) for context in contexts)


def _functions_around() -> list[Any]:
    """The contexts of the autograd functions whose forward runs now, the innermost first."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return []
    found = []
    frame = sys._getframe(1)
    while frame is not None:
        # By name first: to read a frame's variables is to copy them.
        context = frame.f_locals.get("ctx") if "ctx" in frame.f_code.co_varnames else None
        if isinstance(context, FunctionCtx):
            found.append(context)
        frame = frame.f_back
    return found
