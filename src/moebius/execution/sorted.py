"""Rows sorted by expert: each expert runs on one contiguous segment."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.routing import Routing, Selection
from moebius.execution._contract import Execution
from moebius.execution._ffn import ffn_obstacle, ffn_weights
from moebius.execution._order import sort_by_expert, sort_few_by_expert
from moebius.execution._pool import Pool
from moebius.execution._running import check_shapes, expert_output, with_zero_gradients
from moebius.execution.stacked import all_outputs

# Up to so many assignments are ordered as plain numbers.
_FEW = 16


class Sorted(Execution):
    """Sort the assignments by expert, once, and run each expert on its segment of the gathered rows.

    Any experts, also unlike ones; what was dropped is not gathered. A `Stack` of `experts.FFN` on a CPU runs by an
    operator of its own, piece by piece from the first product to the last while a piece is in the cache; it goes
    through `torch.compile` whole. Other experts are called one by one, which a compiler cannot follow.

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool([nn.Linear(4, 3), nn.Linear(4, 3)])
        >>> Sorted().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: ours; Gale, Narayanan, Young, Zaharia 2022, MegaBlocks, section 5 for sorting in the place of padding.
    """

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment.

        Raises:
            ArgumentError: as of `loop`.
        """
        selection = routing.selection
        if selection is None:
            return all_outputs(pool, x)
        if ffn_obstacle(pool, x) is None:
            return _ffn(pool, x, selection, None)
        output, order = _segments(pool, x, selection)
        return output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, order, output)

    def sum(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row."""
        selection = routing.selection
        assert selection is not None
        if ffn_obstacle(pool, x) is None:
            return _ffn(pool, x, selection, selection.weight_A)
        if len(x) == 1 and len(selection.row_A) == 1 and not x.is_cuda and selection.kept_A.item():
            return _alone(pool, x, selection)
        output, order = _segments(pool, x, selection)
        weight = selection.weight_A[order].to(output.dtype).view(-1, *[1] * (output.ndim - 1))
        rows = output.new_zeros(len(x), *output.shape[1:])
        return rows.index_add(0, selection.row_A[order], weight * output)


def _ffn(pool: Pool, x: Tensor, selection: Selection, weight_A: Tensor | None) -> Tensor:
    # Defining an operator imports a good part of torch's compiler, which most mixtures never need.
    from moebius.execution._sorted_ffn import sorted_ffn

    weights = ffn_weights(pool, x)
    order, counts = sort_by_expert(selection.expert_A, selection.kept_A, len(pool))
    keep = torch.is_grad_enabled()
    y, *_ = sorted_ffn(
        x.flatten(1),
        weights.inner,
        weights.inner_bias,
        weights.outer,
        weights.outer_bias,
        selection.row_A,
        weight_A,
        order,
        counts,
        weights.activation,
        weights.dtype,
        keep,
    )
    return y


def _alone(pool: Pool, x: Tensor, selection: Selection) -> Tensor:
    """One row for one expert: nothing is to be moved."""
    number = int(selection.expert_A)
    (expert,) = pool.some([number])
    output = expert_output(number, expert, x, selection.row_A)
    y = output * selection.weight_A.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
    return with_zero_gradients(y, _idle(pool, [int(other == number) for other in range(len(pool))]))


def _segments(pool: Pool, x: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """What the experts say of the kept assignments, expert after expert, and which assignments those are."""
    order, counts = _ordered(selection, len(pool))
    rows = selection.row_A[order]
    gathered, layout = x.index_select(0, rows), _layout(x)
    if layout is not None:
        gathered = gathered.contiguous(memory_format=layout)
    # Where there is nothing to run, the shape of an output has to be known all the same.
    busy = [number for number, count in enumerate(counts) if count] or [0]
    lengths = [counts[number] for number in busy]
    pieces = zip(busy, pool.some(busy), gathered.split(lengths), rows.split(lengths), strict=False)
    outputs = [expert_output(*piece) for piece in pieces]
    return with_zero_gradients(torch.cat(check_shapes(outputs, busy)), _idle(pool, counts)), order


def _ordered(selection: Selection, experts: int) -> tuple[Tensor, list[int]]:
    expert_A, kept_A = selection.expert_A, selection.kept_A
    if len(expert_A) <= _FEW and not expert_A.is_cuda:
        order, counts = sort_few_by_expert(expert_A, kept_A, experts)
        return torch.tensor(order, dtype=torch.long), counts
    order, counts = sort_by_expert(expert_A, kept_A, experts)
    counts = counts.tolist()
    return order[: sum(counts)], counts


def _idle(pool: Pool, counts: list[int]) -> list[nn.Module]:
    """The experts without rows, whose gradients have to be made zero; parts of a stack's are so by themselves."""
    if pool.stack is not None:
        return [] if any(counts) else [pool.stack]
    return [expert for expert, count in zip(pool.modules, counts, strict=True) if not count]


def _layout(x: Tensor) -> torch.memory_format | None:
    """Channels-last, where images are: gathering would make them channels-first."""
    channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else None
