"""What executions share that call experts one after another."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.module_outputs import adapter_line, describe_output
from moebius.core.processes import is_distributed
from moebius.core.routing import Router
from moebius.core.row_context import call_with_context, current_context, row_context
from moebius.core.stack import Stack
from moebius.execution._pool import Pool
from moebius.kit.errors import ArgumentError


def expert_output(number: int, expert: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """What expert `number` says of the rows with these numbers, of which a mixture inside it is told.

    Raises:
        ArgumentError: it has batch normalisation and gets a single row to train on, or gives no tensor with its rows.
    """
    try:
        with row_context(current_context().select_rows(rows)):
            return checked_output(number, expert, x)
    except ValueError as error:
        if isinstance(error, ArgumentError) or len(x) != 1 or "more than 1 value per channel" not in str(error):
            raise
        rule = "batch normalisation needs more than one row to train on, and the router sent it"
        raise ArgumentError(f"experts.{number}", rule, 1, "a larger batch, or nn.GroupNorm in its place") from error


def checked_output(number: int, expert: nn.Module, x: Tensor, pool: str = "experts") -> Tensor:
    """What expert `number` of a pool says of the rows of this call.

    Raises:
        ArgumentError: it is no tensor, or has not one output for each row.
    """
    output = call_with_context(expert, x)
    if has_rows(output, x):
        return output
    rule = f"the expert, a {type(expert).__name__}, must give one tensor whose first axis is that of its {len(x)} rows"
    one_by_one = isinstance(output, Tensor)
    fix = "an expert that treats its rows one by one" if one_by_one else adapter_line("expert", output, len(x))
    raise ArgumentError(f"{pool}.{number}", rule, describe_output(output), fix)


def has_rows(output: Any, x: Tensor) -> bool:
    """Whether an output is a tensor with an entry for each row."""
    return isinstance(output, Tensor) and (torch.compiler.is_compiling() or output.shape[:1] == x.shape[:1])


def check_not_sharded(pool: Pool) -> None:
    """Hold the experts of a list to being sharded with the whole mixture, where a router selects.

    Raises:
        ArgumentError: one is sharded by itself: a process without rows for it would not join in gathering it.
    """
    for number, expert in enumerate(pool.modules):
        for part in expert.modules():
            if any(base.__name__ in _SHARDS for base in type(part).__mro__):
                rule = (
                    "is an expert that is sharded by itself: processes without rows for it would leave others waiting"
                )
                raise ArgumentError(f"experts.{number}", rule, type(part).__name__, "fully_shard(mixture)")


_SHARDS = ("FSDPModule", "FullyShardedDataParallel")


def check_shapes(outputs: Sequence[Tensor], numbers: Sequence[int], pool: str = "experts") -> list[Tensor]:
    """The outputs of the experts with these numbers in a pool.

    Raises:
        ArgumentError: they differ in more than their first axis.
    """
    for output, number in zip(outputs, numbers, strict=False):
        if output.shape[1:] != outputs[0].shape[1:]:
            rule = f"gives rows of shape {tuple(output.shape[1:])} where {pool}.{numbers[0]} gives rows of shape"
            fix = "mb.experts.Adapter(expert, transform=…) or a last layer that makes all outputs alike"
            raise ArgumentError(f"{pool}.{number}", rule, tuple(outputs[0].shape[1:]), fix)
    return list(outputs)


def with_zero_gradients(values: Tensor, idle: Iterable[nn.Module]) -> Tensor:
    """`values`, in whose backward pass modules that took no part get gradients of zero, not None.

    An optimizer treats the two differently, and data-parallel training waits for every parameter.
    """
    if not torch.is_grad_enabled():
        return values
    trained = [parameter for module in idle for parameter in _tensors(module) if parameter.requires_grad]
    return _WithZeroGradients.apply(values, *trained) if trained else values  # type: ignore[return-value]


def with_gate_gradients(y: Tensor, router: Router, parts: Iterable[nn.Module], training: bool) -> Tensor:
    """`y`, in whose backward pass a gate that its router does not train gets gradients of zero among processes.

    Data-parallel training waits for every parameter.
    """
    idle = training and not router.trains_gate and is_distributed()
    return with_zero_gradients(y, parts) if idle else y


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    # Those of a stack may be parametrised, and gradients go through that.
    return module.tensors().values() if isinstance(module, Stack) else module.parameters()


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, *parameters):
        ctx.save_for_backward(*parameters)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0], *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)
