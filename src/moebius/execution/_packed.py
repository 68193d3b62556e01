"""Feed-forward experts whose weights lie as the processor's library wants them, for inference."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.routing import Routing, Selection
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, ffn_weights
from moebius.execution._order import sort_by_expert
from moebius.execution._pool import Pool
from moebius.execution._weighted_rows import sum_by_row
from moebius.execution.gather import Gather
from moebius.networks.feed_forward import feed_forward_activation

# Rows of an expert are padded to a multiple of this number from it on: a kernel is compiled for every number of rows.
_MULTIPLE = 16
# Number of rows for which the library arranges the weights; others run too.
_TYPICAL_ROWS = 64


class Packed(Execution):
    """Run each expert on its sorted rows with weights that were packed once.

    It is made by `SparseFFN.prepare_inference` for one stack and holds a second copy of its weights. Where gradients
    are recorded, for other rows than it was made for, or after a change of the weights, the execution before it runs.
    A copy of it, and what is loaded from a file, is the execution before it.

    Arguments:
        stack: of feed-forward experts on a CPU, in float32 or bf16.
        before: the execution before it.
    """

    def __init__(self, stack: Stack, before: Execution):
        self.before = before
        weights = ffn_weights(Pool(stack), next(iter(stack.tensors().values()))[0])
        self.dtype, self.activation = weights.dtype, weights.activation
        self.versions = _versions(stack)
        with torch.no_grad():
            self.layers = [
                (_pack(inner), inner_bias, _pack(outer), outer_bias)
                for inner, inner_bias, outer, outer_bias in map(weights.by_expert().__getitem__, range(len(stack)))
            ]

    @property
    def name(self) -> str:
        """packed."""
        return "packed"

    def __reduce__(self):
        return _identity, (self.before,)

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Everything but selected experts of the stack that was packed, without gradients, in the packed format."""
        if routing.selection is None or pool.stack is None:
            return "needs a stack of experts, and a router that selects"
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return "is for inference: torch.no_grad() or torch.inference_mode(), and no compiler"
        if x.dtype != self.dtype:
            return f"has weights in {self.dtype}, and these rows are {x.dtype}"
        if _versions(pool.stack) != self.versions:
            return "has weights that were changed since"
        return ffn_obstacle(pool, x)

    def choose(self, pool: Pool, routing: Routing, x: Tensor) -> tuple[Execution, str]:
        """This execution; the one before it where this one refuses, or where each row reads its experts' weights."""
        if self.refuses(pool, routing, x) is not None:
            return self.before.choose(pool, routing, x)
        execution, reason = self.before.choose(pool, routing, x)
        # A single row would read packed weights in the same time, and not be spared the sorting.
        return (execution, reason) if isinstance(execution, Gather) else (self, "its weights are packed for inference")

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        """One output for each assignment."""
        selection = routing.selection
        assert selection is not None
        outputs, order, _ = self._outputs(selection, x)
        return outputs.new_zeros(len(selection.row_A), outputs.shape[1]).index_copy_(0, order, outputs)

    def sum(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row."""
        selection = routing.selection
        assert selection is not None
        outputs, order, rows = self._outputs(selection, x)
        return sum_by_row(outputs, rows, selection.weight_A[order], len(x))

    def _outputs(self, selection: Selection, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the kept assignments, expert after expert, the assignments, and their rows."""
        order, count_E = sort_by_expert(selection.expert_A, selection.kept_A, len(self.layers))
        counts = count_E.tolist()
        order = order[: sum(counts)]
        rows = selection.row_A[order]
        active = [expert for expert, count in enumerate(counts) if count]
        segments = x.flatten(1).index_select(0, rows).split([counts[expert] for expert in active])
        outputs = [self._output(expert, segment) for expert, segment in zip(active, segments, strict=True)]
        # An expert's output is as wide as its rows.
        return torch.cat(outputs) if outputs else x.new_zeros(0, x.shape[1]), order, rows

    def _output(self, expert: int, rows: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        inner, inner_bias, outer, outer_bias = self.layers[expert]
        count = len(rows)
        if count > _MULTIPLE and count % _MULTIPLE:
            rows = F.pad(rows, (0, 0, 0, -count % _MULTIPLE))
        hidden = feed_forward_activation(self.activation, _product(rows, inner, inner_bias))
        return _product(hidden, outer, outer_bias)[:count]


def _identity(execution: Execution) -> Execution:
    return execution


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_ROWS)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _versions(stack: Stack) -> list[Any]:
    """What changes when a tensor of the stack is written to or replaced."""
    return [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in stack.tensors().values()]


def packing_obstacle(stack: Stack) -> str | None:
    """Why the weights of a stack of feed-forward experts cannot be packed, as the end of a sentence; else None."""
    weight = next(iter(stack.tensors().values()))
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return "needs weights on the CPU, in float32 or bf16"
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return "needs a torch with oneDNN"
    return None
