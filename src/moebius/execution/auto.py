"""The execution that chooses another by a rule."""

import sys
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from moebius.core.routing import Routing
from moebius.core.transforms import transform_active
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, ffn_weights
from moebius.execution._gpu_choice import compute_capability, reason_for_fused
from moebius.execution._pool import Pool
from moebius.execution._segments.choice import padding_reason
from moebius.execution.dense import Dense
from moebius.execution.fused import Fused
from moebius.execution.gather import Gather
from moebius.execution.grouped import Grouped, product_dtype
from moebius.execution.loop import Loop
from moebius.execution.padded import Padded
from moebius.execution.sorted import Sorted
from moebius.execution.stacked import Stacked

# An execution and the reason for it, a sentence.
Decision = tuple[Execution, str]

# Up to this number assignments are few: kernels for many rows would mostly wait for the weights.
_FEW_ON_GPU, _FEW_ON_CPU = 16, 4
# On a CPU, calling an expert takes as long as this number of multiply-adds: measured, see docs/execution.md.
_CALL_COST = 2e6


class Choice(NamedTuple):
    """An execution's name and the reason why it runs, a sentence."""

    name: str
    reason: str


class Auto(Execution):
    """Run the experts by the execution that a rule chooses (`decide`).

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Auto().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours. The choice is a rule and never a measurement, so that a resumed run computes the same bits.
    """

    def choose(self, pool: Pool, routing: Routing, x: Tensor) -> Decision:
        """The execution that the rule chooses, and the reason."""
        return _apply_rule(pool, routing, x)

    def run(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        execution, _ = self.choose(pool, routing, x)
        return execution.run(pool, routing, x)


def decide(execution: Execution, pool: Pool, routing: Routing, x: Tensor) -> Decision:
    """The execution that runs these experts on these rows in a mixture constructed with `execution`, and the reason.

    Where experts are on several processes it is one that moves rows to them, and `execution` runs them there.

    Raises:
        ArgumentError: `execution` is not `auto`, and refuses.
    """
    if pool.dispatcher is not None:
        return pool.dispatcher.around(execution), pool.dispatcher.reason
    if transform_active() and routing.selection is not None:
        return execution if isinstance(execution, Dense) else Dense(), _TRANSFORMED
    return execution.choose(pool, routing, x)


def choose(pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Choice:
    """The name of the execution that the rule chooses for these experts, rows and routing, and the reason.

    The rule depends on the kind of the experts, the numbers of rows and experts, the number format, the device, and
    whether a compiler or a transform is active. `moe.chosen(x)` applies it to a mixture and its rows.

    Example:
        >>> import moebius as mb
        >>> experts, x = Pool([mb.experts.Linear(4, 3), torch.nn.Linear(4, 3)]), torch.zeros(5, 4)
        >>> choose(experts, mb.routers.Soft()(torch.zeros(5, 2)), x)
        Choice(name='loop', reason='stacked needs equal experts: their classes differ')
        >>> choose(experts, mb.routers.TopK(1)(torch.zeros(5, 2)), x)
        Choice(name='sorted', reason='each expert runs on its rows, gathered once')
    """
    execution, reason = _apply_rule(pool, routing, x)
    return Choice(execution.name, reason)


_TRANSFORMED = "transforms of torch.func and forward-mode differentiation need plain operations"
_SINGLE = "there is one expert"
_COMPILED = "a compiler cannot follow experts that are called one by one"


def _apply_rule(pool: Pool, routing: Routing, x: Tensor) -> Decision:
    is_single = len(pool) == 1 and pool.stack is None
    if routing.selection is None:
        return (Loop(), _SINGLE) if is_single else _choose_for_all_rows(pool, routing, x)
    if transform_active():
        return Dense(), _TRANSFORMED
    if x.is_meta:
        return Dense(), "rows without values go to no expert by them"
    if torch.compiler.is_exporting():
        return Dense(), "an exported graph has to hold every expert"
    if is_single and not torch.compiler.is_compiling():
        return Loop(), _SINGLE
    if x.is_cuda:
        return _choose_on_gpu(pool, routing, x, len(routing.selection.row_A))
    return _choose_on_cpu(pool, x, len(routing.selection.row_A))


def _choose_on_cpu(pool: Pool, x: Tensor, assignments: int) -> Decision:
    is_compiling = torch.compiler.is_compiling()
    has_dense_layers = pool.refuses_rows(x) is None
    if has_dense_layers and not is_compiling and assignments <= _FEW_ON_CPU:
        return Gather(), f"{assignments} assignments are few: each reads its expert's weights"
    if ffn_obstacle(pool, x) is None:
        # A rule by the number of rows would compile another graph for other numbers.
        reason = padding_reason(product_dtype(x), sys.maxsize if is_compiling else assignments, len(pool))
        if reason is not None:
            return Padded(), reason
        return Sorted(), "feed-forward experts on a CPU have an operator for sorted rows"
    if is_compiling:
        return Dense(), _COMPILED
    if has_dense_layers and _is_tiny(pool, len(x) - assignments / len(pool)):
        return Dense(), "the experts are so small that running all takes less than calling the chosen ones"
    return _choose_one_by_one(pool)


def _choose_one_by_one(pool: Pool, refusal: str = "") -> Decision:
    obstacle = None if pool.stack is None else pool.product_obstacle
    reason = f"{refusal}; {obstacle}" if refusal and obstacle and obstacle not in refusal else refusal or obstacle
    return Sorted(), f"each expert runs on its rows, gathered once{f'; {reason}' if reason else ''}"


def _is_tiny(pool: Pool, unchosen: float) -> bool:
    """Whether running an expert on the rows that did not choose it (`unchosen` of them) costs less than calling it."""
    assert pool.stack is not None
    parameters = sum(tensor.numel() for tensor in pool.stack.tensors().values())
    return unchosen * parameters / len(pool) <= _CALL_COST


def _choose_for_all_rows(pool: Pool, routing: Routing, x: Tensor) -> Decision:
    if pool.stack is None and all("rowwise" not in vars(type(expert)) for expert in pool.modules):
        kind = type(pool.template).__name__
        return Loop(), f"{kind} has no product of its own for equal experts"
    reason = Stacked().refuses(pool, routing, x)
    if reason is not None:
        return Loop(), f"stacked {reason}"
    if len(pool.groups) > 1:
        return Stacked(), "equal experts among unlike ones all run: one product for each kind"
    return Stacked(), "equal experts all run: one product"


def _choose_on_gpu(pool: Pool, routing: Routing, x: Tensor, assignments: int) -> Decision:
    if assignments <= _FEW_ON_GPU and pool.refuses_rows(x) is None:
        return Gather(), f"{assignments} assignments are few: each reads its expert's weights"
    return choose_for_many_rows(pool, routing, x, compute_capability(x.device))


def choose_for_many_rows(pool: Pool, routing: Routing, x: Tensor, capability: tuple[int, int] | None) -> Decision:
    """The execution of more than a few assignments on a GPU of this compute capability, and the reason."""
    assert routing.selection is not None
    refusal, obstacle = Fused().refuses(pool, routing, x), Grouped().refuses(pool, routing, x)
    if refusal is None:
        experts, features, hidden = ffn_weights(pool, x).outer.shape
        rows_per_expert = len(routing.selection.row_A) / experts
        reason = reason_for_fused(rows_per_expert, features, hidden, capability, obstacle)
        if reason is not None:
            return Fused(), reason
        return Grouped(), "torch's grouped product: fused is not measured to be ahead at these sizes on this GPU"
    if obstacle is None:
        return Grouped(), f"dense layers in bf16 on a GPU; fused {refusal}"
    if torch.compiler.is_compiling():
        return Dense(), _COMPILED
    return _choose_one_by_one(pool, f"fused {refusal}")
