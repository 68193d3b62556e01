"""Activation checkpointing, seen from inside a forward: the same rows come by twice, with a graph only once.

Non-reentrant checkpointing runs a block with a graph whose tensors it throws away, and runs it again in backward for
their values. Reentrant checkpointing runs it inside an autograd function, without a graph, and again in backward with
one. What a forward leaves behind (counts, records) belongs to the first of both.
"""

import sys
from typing import Any

import torch
from torch.autograd.function import FunctionCtx


def replaying() -> bool:
    """Whether this forward repeats an earlier one: it happens in a backward, for the tensors of activation checkpoints.

    False in compiled code, which cannot ask at run time.

    Example:
        >>> replaying()
        False
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def replayed_later() -> bool:
    """Whether this forward has no graph because backward will repeat it with one: reentrant checkpointing's first pass.

    Example:
        >>> with torch.no_grad():
        ...     replayed_later()
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
