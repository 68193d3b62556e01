"""Rows sorted by expert: each expert runs on one contiguous segment."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.execution._every import every
from moebius.execution._order import by_expert, few_by_expert
from moebius.execution._running import run_one, with_zero_gradients
from moebius.execution._sum import sums_by
from moebius.execution._weights import ffn_weights, why_not_ffn
from moebius.routing import Routing, Selection
from moebius.stack import Stack

Experts = Sequence[nn.Module] | nn.ModuleList | Stack

# Up to so many assignments are ordered as plain numbers.
_FEW = 16


def weighted_sum(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "T ..."]:
    """Σ_a weight_a · expert_a(x_a) over the assignments a of each row: `sorted` and the weighted sum in one."""
    selection = routing.selection
    assert selection is not None
    if why_not_ffn(experts, x) is None:
        return _ffn(experts, x, selection, selection.weight_A)
    if len(x) == 1 and len(selection.row_A) == 1 and not x.is_cuda and selection.kept_A.item():
        return _alone(experts, x, selection)
    output, order = _segments(experts, x, selection)
    weight = selection.weight_A[order].to(output.dtype).view(-1, *[1] * (output.ndim - 1))
    rows = output.new_zeros(len(x), *output.shape[1:])
    return rows.index_add(0, selection.row_A[order], weight * output)


@sums_by(weighted_sum)
def sorted(experts: Experts, x: Float[Tensor, "T ..."], routing: Routing) -> Float[Tensor, "..."]:
    """Sort the assignments by expert, once, and run each expert on its segment of the gathered rows.

    Any experts, also unlike ones; what was dropped is not gathered. A `Stack` of `experts.FFN` on a CPU runs by an
    operator of its own, piece by piece from the first product to the last while a piece is in the cache; it goes
    through `torch.compile` whole. Other experts are called one by one, which a compiler cannot follow.

    Arguments, Returns, Raises: as of `loop`.

    Reference: ours; Gale, Narayanan, Young, Zaharia 2022, MegaBlocks, section 5 for sorting in the place of padding.
    """
    selection = routing.selection
    if selection is None:
        return every(experts, x, routing)
    if why_not_ffn(experts, x) is None:
        return _ffn(experts, x, selection, None)
    output, order = _segments(experts, x, selection)
    return output.new_zeros(len(selection.row_A), *output.shape[1:]).index_copy(0, order, output)


def _ffn(experts: Experts, x: Tensor, selection: Selection, weight_A: Tensor | None) -> Tensor:
    # Defining an operator imports a good part of torch's compiler, which most mixtures never need.
    from moebius.execution._sorted_ffn import sorted_ffn

    weights = ffn_weights(experts, x)
    order, counts = by_expert(selection.expert_A, selection.kept_A, len(experts))
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


def _alone(experts: Experts, x: Tensor, selection: Selection) -> Tensor:
    """One row for one expert: nothing is to be moved."""
    number = int(selection.expert_A)
    output = run_one(number, experts[number], x, selection.row_A)
    y = output * selection.weight_A.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
    if not torch.is_grad_enabled():
        return y
    return with_zero_gradients(y, _idle(experts, [int(one == number) for one in range(len(experts))]))


def _segments(experts: Experts, x: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """What the experts say of the kept assignments, expert after expert, and which assignments those are."""
    order, counts = _ordered(selection, len(experts))
    rows = selection.row_A[order]
    gathered, layout = x.index_select(0, rows), _layout(x)
    if layout is not None:
        gathered = gathered.contiguous(memory_format=layout)
    busy = [number for number, count in enumerate(counts) if count]
    lengths = [counts[number] for number in busy]
    pieces = zip(busy, _some(experts, busy), gathered.split(lengths), rows.split(lengths), strict=False)
    outputs = [run_one(*piece) for piece in pieces]
    if not outputs:  # nothing to run, yet the shape of an output has to be known
        outputs = [run_one(0, experts[0], gathered, rows)]
    return with_zero_gradients(torch.cat(outputs), _idle(experts, counts)), order


def _ordered(selection: Selection, experts: int) -> tuple[Tensor, list[int]]:
    expert_A, kept_A = selection.expert_A, selection.kept_A
    if len(expert_A) <= _FEW and not expert_A.is_cuda:
        order, counts = few_by_expert(expert_A, kept_A, experts)
        return torch.tensor(order, dtype=torch.long), counts
    order, counts = by_expert(expert_A, kept_A, experts)
    counts = counts.tolist()
    return order[: sum(counts)], counts


def _some(experts: Experts, numbers: list[int]) -> Iterable[nn.Module]:
    return experts.only(numbers) if isinstance(experts, Stack) else [experts[number] for number in numbers]


def _idle(experts: Experts, counts: list[int]) -> list[nn.Module]:
    """The experts without rows, whose gradients have to be made zero; parts of a stack's are so by themselves."""
    if isinstance(experts, Stack):
        return [] if any(counts) else [experts]
    return [expert for expert, count in zip(experts, counts, strict=True) if not count]


def _layout(x: Tensor) -> torch.memory_format | None:
    """Channels-last, where images are: gathering would make them channels-first."""
    channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else None
