"""The execution that picks one by a rule."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.core.transforms import transform_active
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle
from moebius.execution._pool import Pool
from moebius.execution.dense import Dense
from moebius.execution.fused import Fused
from moebius.execution.gather import Gather
from moebius.execution.grouped import Grouped
from moebius.execution.loop import Loop
from moebius.execution.sorted import Sorted
from moebius.execution.stacked import Stacked

# An execution and why it runs, a sentence.
Decision = tuple[Execution, str]

# Up to so many assignments are few: kernels for many rows would mostly wait for the weights.
_FEW_ON_GPU, _FEW_ON_CPU = 16, 4
# Multiply-adds of a dense expert that take as long as calling it, on a CPU: from trials, see docs/execution.md.
_CALL = 2e6


class Choice(NamedTuple):
    """An execution's name and why it runs, a sentence."""

    name: str
    reason: str


class Auto(Execution):
    """Run the experts in the way that a rule picks (`decide`).

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> Auto().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours. A rule and never a measurement, so that a resumed run computes the same bits.
    """

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        execution, _ = _picked(pool, routing, x)
        return execution.run(pool, routing, x)


def decide(execution: Execution, pool: Pool, routing: Routing, x: Tensor) -> Decision:
    """What runs these experts on these rows for a mixture that was made with `execution`, and why.

    Raises:
        ArgumentError: the execution was named and refuses.
    """
    if isinstance(execution, Auto):
        return _picked(pool, routing, x)
    if transform_active() and routing.selection is not None:
        return Dense(), _TRANSFORMED
    execution.insist(pool, routing, x)
    return execution, "the mixture was made with it"


def choose(pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Choice:
    """The name of the execution that the rule picks for these experts, rows and routing, and the reason as a sentence.

    It goes by the kind of the experts, the numbers of rows and experts, the number format, the device, and whether a
    compiler or a transform is at work. `moe.chosen(x)` asks it for a mixture and rows.

    Example:
        >>> import moebius as mb
        >>> experts, x = Pool([mb.experts.Linear(4, 3), torch.nn.Linear(4, 3)]), torch.zeros(5, 4)
        >>> choose(experts, mb.routers.Soft()(torch.zeros(5, 2)), x)
        Choice(name='loop', reason='stacked needs equal experts: their classes differ')
        >>> choose(experts, mb.routers.TopK(1)(torch.zeros(5, 2)), x)
        Choice(name='sorted', reason='each expert runs on its rows, gathered once')
    """
    execution, reason = _picked(pool, routing, x)
    return Choice(execution.name, reason)


_TRANSFORMED = "transforms of torch.func and forward-mode differentiation need plain operations"
_ALONE = "there is one expert"
_COMPILED = "a compiler cannot follow experts that are called one by one"


def _picked(pool: Pool, routing: Routing, x: Tensor) -> Decision:
    alone = len(pool) == 1 and pool.stack is None
    if routing.selection is None:
        return (Loop(), _ALONE) if alone else _for_all_rows(pool, routing, x)
    if transform_active():
        return Dense(), _TRANSFORMED
    if x.is_meta:
        return Dense(), "rows without values go to no expert by them"
    if torch.compiler.is_exporting():
        return Dense(), "an exported graph has to hold every expert"
    if alone and not torch.compiler.is_compiling():
        return Loop(), _ALONE
    if x.is_cuda:
        return _on_gpu(pool, routing, x, len(routing.selection.row_A))
    return _on_cpu(pool, x, len(routing.selection.row_A))


def _on_cpu(pool: Pool, x: Tensor, assignments: int) -> Decision:
    compiling = torch.compiler.is_compiling()
    dense_layers = pool.refuses_rows(x) is None
    if dense_layers and not compiling and assignments <= _FEW_ON_CPU:
        return Gather(), f"{assignments} assignments are few: each reads its expert's weights"
    if ffn_obstacle(pool, x) is None:
        return Sorted(), "feed-forward experts on a CPU have an operator for sorted rows"
    if compiling:
        return Dense(), _COMPILED
    if dense_layers and _tiny(pool, len(x) - assignments / len(pool)):
        return Dense(), "the experts are so small that running all takes less than calling the chosen ones"
    return _one_by_one(pool)


def _one_by_one(pool: Pool, besides: str = "") -> Decision:
    obstacle = None if pool.stack is None else pool.obstacle[0]
    why = f"{besides}; {obstacle}" if besides and obstacle and obstacle not in besides else besides or obstacle
    return Sorted(), f"each expert runs on its rows, gathered once{f'; {why}' if why else ''}"


def _tiny(pool: Pool, unchosen: float) -> bool:
    """Whether an expert takes less for the rows that it was not chosen for than for being called."""
    assert pool.stack is not None
    return unchosen * sum(tensor.numel() for tensor in pool.stack.tensors().values()) / len(pool) <= _CALL


def _for_all_rows(pool: Pool, routing: Routing, x: Tensor) -> Decision:
    if pool.stack is None and all("rowwise" not in vars(type(expert)) for expert in pool.modules):
        kind = type(pool.first).__name__
        return Loop(), f"{kind} has no product of its own for equal experts"
    why = Stacked().refuses(pool, routing, x)
    if why is not None:
        return Loop(), f"stacked {why}"
    if len(pool.alike) > 1:
        return Stacked(), "equal experts among unlike ones all run: one product for each kind"
    return Stacked(), "equal experts all run: one product"


def _on_gpu(pool: Pool, routing: Routing, x: Tensor, assignments: int) -> Decision:
    if assignments <= _FEW_ON_GPU and pool.refuses_rows(x) is None:
        return Gather(), f"{assignments} assignments are few: each reads its expert's weights"
    why_fused = Fused().refuses(pool, routing, x)
    if why_fused is None:
        return Fused(), "feed-forward experts on a GPU have kernels of their own"
    if Grouped().refuses(pool, routing, x) is None:
        return Grouped(), f"dense layers in bf16 on a GPU; fused {why_fused}"
    if torch.compiler.is_compiling():
        return Dense(), _COMPILED
    return _one_by_one(pool, f"fused {why_fused}")
