"""Calls experts one by one and checks their outputs; shared by executions and layers."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.module_outputs import adapter_line, describe_output
from moebius.core.processes import is_distributed, shares_batches
from moebius.core.routing import Router
from moebius.core.row_context import call_with_context, current_context, row_context
from moebius.core.stack import Stack
from moebius.execution._pool import Pool
from moebius.kit.errors import ArgumentError


def expert_output(number: int, expert: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """The output of expert `number` for some rows; a mixture inside the expert sees them as these rows of the batch.

    Arguments:
        number: of the expert, for errors.
        expert: the module.
        x: its rows.
        rows: their indices in the batch of the surrounding mixture.

    Raises:
        ArgumentError: the expert has batch normalisation and receives a single row in training, or its output is not
            one tensor with an entry for each row.
    """
    try:
        with row_context(current_context().select_rows(rows)):
            return checked_output(number, expert, x)
    except ValueError as error:
        if isinstance(error, ArgumentError) or len(x) != 1 or "more than 1 value per channel" not in str(error):
            raise
        rule = "batch normalisation needs more than one row to train on, and the router sent it"
        raise ArgumentError(f"experts.{number}", rule, 1, "a larger batch, or nn.GroupNorm in its place") from error


def checked_output(
    number: int | str, expert: nn.Module, x: Tensor, pool: str = "experts", noun: str = "expert"
) -> Tensor:
    """The output of expert `number` for the rows of this call.

    Arguments:
        number: of the expert, or its name, for errors.
        expert: the module, or another part that gives an entry for each row.
        x: its rows.
        pool: the name of the list of experts, for errors.
        noun: what the module is, for errors.

    Raises:
        ArgumentError: the output is not a tensor, or does not have one entry for each row.
    """
    output = call_with_context(expert, x)
    if has_rows(output, x):
        return output
    rule = f"the {noun}, a {type(expert).__name__}, must give one tensor whose first axis is that of its {len(x)} rows"
    is_tensor = isinstance(output, Tensor)
    fix = f"another {noun}, that treats its rows one by one" if is_tensor else adapter_line(noun, output, len(x))
    raise ArgumentError(f"{pool}.{number}", rule, describe_output(output), fix)


def has_rows(output: Any, x: Tensor) -> bool:
    """Whether an output is a tensor with an entry for each row."""
    return isinstance(output, Tensor) and (torch.compiler.is_compiling() or output.shape[:1] == x.shape[:1])


def runs_without_rows(expert: nn.Module) -> bool:
    """Whether an expert also runs when no row reaches it: where processes share batches, if it has mixtures inside.

    Gate losses are sums over the processes, for which each has to have a routing of every mixture.
    """
    return trains_shares() and any(isinstance(module, Router) for module in expert.modules())


def trains_shares() -> bool:
    """Whether gradients are computed of this process's rows of batches that several share, in `mb.fit`."""
    return shares_batches() and torch.is_grad_enabled()


def check_not_sharded(pool: Pool) -> None:
    """Check that no expert of a list is sharded on its own, where a router selects.

    Raises:
        ArgumentError: an expert is: a process without rows for it would not take part in gathering its parameters.
    """
    for number, expert in enumerate(pool.modules):
        for module in expert.modules():
            if any(base.__name__ in _SHARDED_CLASSES for base in type(module).__mro__):
                rule = (
                    "is an expert that is sharded by itself: processes without rows for it would leave others waiting"
                )
                raise ArgumentError(f"experts.{number}", rule, type(module).__name__, "fully_shard(mixture)")


_SHARDED_CLASSES = ("FSDPModule", "FullyShardedDataParallel")


def check_shapes(outputs: Sequence[Tensor], numbers: Sequence[int], pool: str = "experts") -> list[Tensor]:
    """`outputs` as a list, whose shapes agree in all but the first axis.

    Arguments:
        outputs: of several experts.
        numbers: of these experts, for errors.
        pool: the name of the list of experts, for errors.

    Raises:
        ArgumentError: two shapes differ in another axis.
    """
    for output, number in zip(outputs, numbers, strict=False):
        if output.shape[1:] != outputs[0].shape[1:]:
            rule = f"gives rows of shape {tuple(output.shape[1:])} where {pool}.{numbers[0]} gives rows of shape"
            fix = "mb.experts.Adapter(expert, transform=…) or a last layer that makes all outputs alike"
            raise ArgumentError(f"{pool}.{number}", rule, tuple(outputs[0].shape[1:]), fix)
    return list(outputs)


def with_zero_gradients(values: Tensor, idle: Iterable[nn.Module]) -> Tensor:
    """`values`, whose backward pass gives the parameters of idle modules gradients of zero, not None.

    Optimizers treat zero and None differently, and data-parallel training waits for the gradient of every parameter.

    Arguments:
        values: the result of the modules that ran.
        idle: modules that did not run.
    """
    if not torch.is_grad_enabled():
        return values
    trainable = [parameter for module in idle for parameter in _parameters(module) if parameter.requires_grad]
    return _WithZeroGradients.apply(values, *trainable) if trainable else values  # type: ignore[return-value]


def with_gate_gradients(y: Tensor, router: Router, parts: Iterable[nn.Module], training: bool) -> Tensor:
    """`y`, whose backward pass gives a gate that its router does not train gradients of zero, among several processes.

    Data-parallel training waits for the gradient of every parameter.

    Arguments:
        y: the mixture's output.
        router: of the mixture.
        parts: the modules of the gate.
        training: whether the mixture is in training mode.
    """
    is_idle = training and not router.trains_gate and is_distributed()
    return with_zero_gradients(y, parts) if is_idle else y


def _parameters(module: nn.Module) -> Iterable[Tensor]:
    # The tensors of a stack may be parametrised, and gradients pass through the parametrisation.
    return module.tensors().values() if isinstance(module, Stack) else module.parameters()


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, *parameters):
        ctx.save_for_backward(*parameters)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0], *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)
