"""A mixture with weights for each position of an input, over experts that see the whole input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.gate_call import call_gate, context_of_call
from moebius.core.recording import is_recording_outputs, record_routing
from moebius.core.routing import Router, Routing
from moebius.core.row_context import MASK_NAME, Padding, RowContext, row_context
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._running import with_gate_gradients
from moebius.kit.errors import ArgumentError
from moebius.layers._expert_pools import PoolOutputs, drop_selection, find_pool, run_pool
from moebius.layers._several_gates import make_pool
from moebius.layers.mixture import resolve_execution
from moebius.routers.soft import Soft


class PositionMixture(nn.Module):
    """A gate weighs the experts at each position (a token, a pixel); gate and experts see the whole input.

    y_b = combine(w_b, experts(x_b)) at each position p:  y_bp = Σ_e w_bpe expert_e(x_b)_p,  w_bp = router(gate(x_b)_p)

    In `Mixture` an expert sees the rows that are sent to it and nothing else. Here an expert is a network that needs
    the whole sequence or image, such as a pretrained encoder, and the gate chooses among the experts' outputs position
    by position: for segmentation, or to classify tokens. Where the router selects, an expert runs on just the inputs in
    which some position selected it.

    The rows of the routing are the positions: T = B · positions, those of padding left out.

    Arguments:
        gate: any module from the whole input to scores for each position, (B, positions…, E); (B, E, positions…) with
            `channel_axis=1`. With `gives_aux` also a mapping of names to values (B, positions…, …).
        experts: modules from the whole input to an output for each position, (B, positions…, C), or (B, C, positions…)
            with `channel_axis=1`; or an `mb.Stack`.
        router: scores (T, E) → Routing; by default `Soft`.
        combine: (outputs, routing) → y; by default the weighted sum.
        channel_axis: where scores and outputs have their channels: −1, behind the positions (sequences), or 1, before
            them (images).
        execution: how experts run, as in `Mixture`.

    Shapes: x (B, …) → (B, positions…, C), or (B, C, positions…) with `channel_axis=1`.

    Raises:
        ArgumentError: there are no experts; another `channel_axis`; a router that hashes rows; the gate's scores are
            not one per position and expert; experts' outputs have other positions than the scores, or the mask has.

    Example:
        >>> import moebius as mb
        >>> experts = [nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1)]  # 5 classes for each pixel
        >>> moe = PositionMixture(nn.Conv2d(3, 2, 1), experts, mb.routers.TopK(1), channel_axis=1)
        >>> moe(torch.zeros(4, 3, 8, 8)).shape
        torch.Size([4, 5, 8, 8])

    Reference: ours; compare Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1, which
    it is at each position.
    """

    def __init__(
        self,
        gate: nn.Module,
        experts: Iterable[nn.Module] | Stack,
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
        channel_axis: int = -1,
        execution: str | Execution = "auto",
    ):
        super().__init__()
        if isinstance(channel_axis, bool) or channel_axis not in (1, -1):
            rule = "needs 1 for channels before the positions, or -1 for channels behind them"
            raise ArgumentError("channel_axis", rule, channel_axis, "channel_axis=1")
        self.gate, self.experts, self.channel_axis = gate, make_pool("experts", experts), channel_axis
        self.router = Soft() if router is None else router
        if self.router.needs_keys:
            rule = "needs a router that goes by scores: positions of whole inputs have no keys"
            raise ArgumentError("router", rule, type(self.router).__name__, "router=mb.routers.TopK(1)")
        self.combine = WeightedSum() if combine is None else combine
        self.execution = resolve_execution(execution)

    @property
    def count(self) -> int:
        """E, the number of experts."""
        return len(find_pool(self.experts))

    def forward(self, x: Tensor, context: Mapping[str, Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        """Run the mixture.

        Arguments:
            x: whole inputs.
            context: side information for gate and experts whose forward takes a context (an attention mask): tensors
                with x's first axis; also `with mb.context(…)`.
            mask: True for real positions, (B, positions…), or for real inputs, (B,); also `with mb.context(mask=…)`.
                Padding is in no routing, load or record; its outputs are 0. Gate and experts do see it, as a part of
                the whole input, which therefore has to be finite; an input of padding alone reaches neither.
        """
        inputs, padding = self._real_inputs(x, context, mask)
        with row_context(inputs.context):
            scores, aux = call_gate(self.gate, inputs.x)
            positions = self._positions(scores, inputs)
            scores = scores.movedim(self.channel_axis, -1).flatten(0, -2)
            routing = self.router(positions.real(scores))
            routing = self._with_aux(routing, aux, positions)
            y = self._mix(routing, inputs.x, positions)
        y = with_gate_gradients(y, self.router, [self.gate], self.training)
        # Contiguous also where channels come first: PyTorch's nll_loss of images refuses another layout in backward.
        y = positions.restore(y).movedim(-1, self.channel_axis).contiguous()
        return y if padding is None else padding.restore_rows(y)

    def _real_inputs(
        self, x: Tensor, context: Mapping[str, Tensor] | None, mask: Tensor | None
    ) -> tuple["_Inputs", Padding | None]:
        """The inputs that have real positions, and where they stand among all."""
        call_context = context_of_call(self.gate, x, context, mask)
        mask = call_context.mask
        if mask is None:
            return _Inputs(x, call_context, None, None), None
        if not mask.ndim or len(mask) != len(x):
            rule = f"needs the first axis of the input, of shape {tuple(x.shape)}"
            raise ArgumentError(MASK_NAME, rule, tuple(mask.shape), "with mb.context(mask=None): …")
        is_real = mask if mask.ndim == 1 else mask.flatten(1).any(1)
        real_context, x, padding = replace(call_context, mask=is_real).remove_padding(x)
        assert padding is not None
        position_mask = None if mask.ndim == 1 else mask.index_select(0, padding.indices)
        # Mixtures inside the experts leave out the same tokens; of images they see other positions.
        inner_mask = position_mask if self.channel_axis == -1 else None
        numbers = padding.indices if call_context.rows is None else None
        return _Inputs(x, replace(real_context, mask=inner_mask), position_mask, numbers), padding

    def _positions(self, scores: Tensor, inputs: "_Inputs") -> "_Positions":
        """The positions that scores (B, positions…, G) are of.

        Raises:
            ArgumentError: these are not scores for each position and expert, or the mask has other positions.
        """
        experts, width = self.count, self.router.gate_outputs(self.count)
        axes = "(B, positions…, {})" if self.channel_axis == -1 else "(B, {}, positions…)"
        if scores.ndim < 3 or scores.shape[0] != inputs.x.shape[0]:
            rule = f"must give scores for each position of {len(inputs.x)} inputs, {axes.format(width)}"
            fix = "mb.Mixture(gate, experts), where the gate weighs whole inputs"
            raise ArgumentError("gate", rule, tuple(scores.shape), fix)
        if scores.shape[self.channel_axis] != width:
            rule = f"must give {width} scores for each position of {experts} experts, {axes.format(width)}"
            fix = f"a last layer of {width} channels, or channel_axis={-self.channel_axis}"
            raise ArgumentError("gate", rule, tuple(scores.shape), fix)
        shape = scores.movedim(self.channel_axis, -1).shape[1:-1]
        if inputs.mask is not None and inputs.mask.shape[1:] != shape:
            rule = f"needs the positions of the gate's scores, (B, {', '.join(map(str, shape))})"
            raise ArgumentError(
                MASK_NAME, rule, tuple(inputs.mask.shape), "a mask of inputs (B,), or of these positions"
            )
        indices = None if inputs.mask is None else inputs.mask.flatten().nonzero().squeeze(1)
        return _Positions(scores.shape[0], shape, indices, self._numbers(inputs, prod(shape), indices))

    @staticmethod
    def _numbers(inputs: "_Inputs", positions: int, indices: Tensor | None) -> Tensor | None:
        """The number of each real position: in the batch, or for nested mixtures of its row in the outermost batch."""
        if inputs.numbers is not None:  # the first batch has padding
            steps = torch.arange(positions, device=inputs.x.device)
            numbers = (inputs.numbers.unsqueeze(1) * positions + steps).flatten()
        elif inputs.context.rows is not None:
            numbers = inputs.context.rows.repeat_interleave(positions)
        else:
            return indices
        return numbers if indices is None else numbers.index_select(0, indices)

    @staticmethod
    def _with_aux(routing: Routing, aux: Mapping[str, Tensor], positions: "_Positions") -> Routing:
        """The routing with the gate's further values and the positions' numbers."""
        batch = (positions.inputs, *positions.shape)
        for name, value in aux.items():
            if value.shape[: len(batch)] != batch:
                rule = f"must give {name!r} for each position, {batch}"
                raise ArgumentError("gate", rule, tuple(value.shape), f"{name!r}: a tensor with these first axes")
        if aux:
            values = {name: positions.real(value.flatten(0, len(batch) - 1)) for name, value in aux.items()}
            routing = replace(routing, aux={**values, **routing.aux})
        return routing if positions.numbers is None else routing.with_rows(positions.numbers)

    def _mix(self, routing: Routing, x: Tensor, positions: "_Positions") -> Tensor:
        """Run the experts on inputs, record the routing, and combine the outputs of the real positions, (T, …)."""
        selection, is_recording = routing.selection, is_recording_outputs(self)
        position_A = None if selection is None else positions.index(selection.row_A)
        demand = None
        if selection is not None and position_A is not None and not is_recording:
            demand = replace(selection, row_A=position_A // max(prod(positions.shape), 1))
        outputs = run_pool(self.experts, self.execution, x, [demand])
        values = self._by_position(outputs, positions)  # (pairs of input and expert, positions, C)
        if selection is not None and position_A is not None and not outputs.is_complete:
            record_routing(self, routing)
            place_A = outputs.locate(position_A // values.shape[1], selection.expert_A)
            selected = values[place_A, position_A % values.shape[1]]
            kept_A = selection.kept_A.view(-1, *[1] * (selected.ndim - 1))
            return self.combine(torch.where(kept_A, selected, 0), routing)
        values_TEC = positions.real(values.unflatten(0, (-1, outputs.count)).movedim(1, 2).flatten(0, 1))
        routing = replace(routing, outputs=values_TEC) if is_recording else routing
        record_routing(self, routing)
        return self.combine(*drop_selection(values_TEC, routing))

    def _by_position(self, outputs: PoolOutputs, positions: "_Positions") -> Tensor:
        """The outputs of pairs of input and expert with one axis of positions, (pairs, positions, C).

        Raises:
            ArgumentError: they have other positions than the gate's scores.
        """
        flat = outputs.flat
        channels_last = flat.movedim(self.channel_axis, -1) if flat.ndim > 1 else flat
        if channels_last.shape[1:-1] != positions.shape or flat.ndim != len(positions.shape) + 2:
            sizes = ", ".join(map(str, positions.shape))
            axes = f"(B, {sizes}, C)" if self.channel_axis == -1 else f"(B, C, {sizes})"
            rule = f"must give an output for each position of the gate's scores, {axes}"
            fix = "experts that keep the positions, or mb.Mixture(gate, experts) for one output for each input"
            raise ArgumentError("experts", rule, ("B", *flat.shape[1:]), fix)
        return channels_last.flatten(1, -2)

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        return {"gate": nn.Linear(facts["features"], facts["experts"])}


@dataclass(frozen=True)
class _Inputs:
    """The inputs of a call that have real positions.

    Arguments:
        x: the inputs.
        context: of these inputs.
        mask: True for their real positions, (B, positions…); None where all are real.
        numbers: of the inputs in the call's batch, where that is the outermost one and has padding.
    """

    x: Tensor
    context: RowContext
    mask: Tensor | None
    numbers: Int[Tensor, " B"] | None


@dataclass(frozen=True)
class _Positions:
    """The T real positions of B inputs.

    Arguments:
        inputs: B.
        shape: axes of the positions of an input.
        indices: of the real positions among all, (T,); None where all are real.
        numbers: of the real positions in the outermost batch, (T,); None where these are 0, 1, 2 …
    """

    inputs: int | torch.SymInt
    shape: torch.Size
    indices: Int[Tensor, " T"] | None
    numbers: Int[Tensor, " T"] | None

    def real(self, values: Tensor) -> Tensor:
        """The values (T, …) of the real positions, of those of all positions (B · positions, …)."""
        return values if self.indices is None else values.index_select(0, self.indices)

    def index(self, row_A: Int[Tensor, " A"]) -> Int[Tensor, " A"]:
        """The index among all positions of each real one."""
        return row_A if self.indices is None else self.indices[row_A]

    def restore(self, values: Tensor) -> Tensor:
        """The values (B, positions…, …) of all positions, 0 for padding."""
        if self.indices is not None:
            everywhere = values.new_zeros(self.inputs * prod(self.shape), *values.shape[1:])
            values = everywhere.index_copy(0, self.indices, values)
        return values.unflatten(0, (self.inputs, *self.shape))
