"""The execution that sorts rows by expert and runs each expert on one contiguous segment."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from moebius.core.routing import Routing, Selection
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, run_ffn
from moebius.execution._order import sort_by_expert, sort_few_by_expert
from moebius.execution._pool import Pool
from moebius.execution._running import (
    check_shapes,
    expert_output,
    runs_without_rows,
    trains_shares,
    with_zero_gradients,
)
from moebius.execution.stacked import all_outputs

# Up to this number, assignments are sorted as a list of Python numbers.
_FEW = 16


class Sorted(Execution):
    """Sort the assignments by expert, once, and run each expert on its segment of the gathered rows.

    It runs any experts, also unlike ones, and does not gather dropped assignments. For a `Stack` of `experts.FFN` on a
    CPU it uses a special operator, which computes both layers of a block of rows while the block is in the cache, and
    which `torch.compile` takes without a graph break. Other experts are called one by one, which no compiler follows.

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool([nn.Linear(4, 3), nn.Linear(4, 3)])
        >>> Sorted().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours; Gale, Narayanan, Young, Zaharia 2022, MegaBlocks, section 5 for sorting in the place of padding.
    """

    def run(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment.

        Raises:
            ArgumentError: as in `loop`.
        """
        selection = routing.selection
        if selection is None:
            return all_outputs(pool, x)
        if ffn_obstacle(pool, x) is None:
            return run_ffn(pool, x, selection, None)
        output, order = _run_segments(pool, x, selection)
        return output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, order, output)

    def sum(self, pool: Pool, routing: Routing, x: Shaped[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row."""
        selection = routing.selection
        assert selection is not None
        if ffn_obstacle(pool, x) is None:
            return run_ffn(pool, x, selection, selection.weight_A)
        is_single = len(x) == 1 and len(selection.row_A) == 1 and not x.is_cuda and selection.kept_A.item()
        if is_single and not _without_rows(pool):
            return _run_single(pool, x, selection)
        output, order = _run_segments(pool, x, selection)
        weight = selection.weight_A[order].to(output.dtype).view(-1, *[1] * (output.ndim - 1))
        sums = output.new_zeros(len(x), *output.shape[1:])
        return sums.index_add(0, selection.row_A[order], weight * output)


def _run_single(pool: Pool, x: Tensor, selection: Selection) -> Tensor:
    """The weighted output of one expert for a single row, without moving the row."""
    number = int(selection.expert_A)
    (expert,) = pool.select([number])
    output = expert_output(number, expert, x, selection.row_A)
    y = output * selection.weight_A.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
    counts = [int(expert_number == number) for expert_number in range(len(pool))]
    return with_zero_gradients(y, _idle_modules(pool, counts))


def _run_segments(pool: Pool, x: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """The outputs for the kept assignments, expert after expert, and the indices of these assignments."""
    order, counts = _sort_kept(selection, len(pool))
    rows = selection.row_A[order]
    gathered, layout = x.index_select(0, rows), _memory_layout(x)
    if layout is not None:
        gathered = gathered.contiguous(memory_format=layout)
    # Where no expert has rows, one runs on none: the shape of an output is needed.
    without_rows = _without_rows(pool)
    active = [number for number, count in enumerate(counts) if count or number in without_rows] or [0]
    lengths = [counts[number] for number in active]
    segments = zip(active, pool.select(active), gathered.split(lengths), rows.split(lengths), strict=False)
    outputs = [expert_output(*segment) for segment in segments]
    return with_zero_gradients(torch.cat(check_shapes(outputs, active)), _idle_modules(pool, counts)), order


def _sort_kept(selection: Selection, experts: int) -> tuple[Tensor, list[int]]:
    """The indices of the kept assignments, sorted by expert, and the number of each expert's."""
    expert_A, kept_A = selection.expert_A, selection.kept_A
    if len(expert_A) <= _FEW and not expert_A.is_cuda:
        order, counts = sort_few_by_expert(expert_A, kept_A, experts)
        return torch.tensor(order, dtype=torch.long), counts
    order, counts = sort_by_expert(expert_A, kept_A, experts)
    counts = counts.tolist()
    return order[: sum(counts)], counts


def _without_rows(pool: Pool) -> list[int]:
    """The experts that run although no row reaches them."""
    if not trains_shares():
        return []
    modules = [pool.template] * len(pool) if pool.stack is not None else pool.modules
    return [number for number, module in enumerate(modules) if runs_without_rows(module)]


def _idle_modules(pool: Pool, counts: list[int]) -> list[nn.Module]:
    """The modules that no row reaches, whose gradients have to be zero.

    Of a stack this is the whole stack or nothing: its tensors hold all experts, and a part without rows gets zeros.
    """
    if pool.stack is not None:
        return [] if any(counts) else [pool.stack]
    return [expert for expert, count in zip(pool.modules, counts, strict=True) if not count]


def _memory_layout(x: Tensor) -> torch.memory_format | None:
    """channels_last for images in that memory format, else None: gathering would make them channels-first."""
    is_channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_channels_last else None
