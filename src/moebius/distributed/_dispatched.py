"""The execution of experts that are on several processes."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moebius.core.output_cache import OutputCache
from moebius.core.recording import is_recording
from moebius.core.routing import Routing, Selection
from moebius.core.row_context import RowContext, current_context, row_context
from moebius.core.transforms import transform_active
from moebius.distributed.placement import local_stack, mark_owned
from moebius.execution._contract import Execution
from moebius.execution._order import sort_by_expert
from moebius.execution._pool import Pool
from moebius.execution.auto import decide
from moebius.kit.errors import ArgumentError, MoebiusError

if TYPE_CHECKING:
    from moebius.distributed.dispatcher import Dispatcher


class Dispatched(Execution):
    """Send rows to the processes of their experts, run each process's experts there, and send the outputs back.

    Arguments:
        dispatcher: moves rows between processes.
        execution: runs the experts of each process.
    """

    def __init__(self, dispatcher: "Dispatcher", execution: Execution):
        self.dispatcher, self.execution, self.placement = dispatcher, execution, dispatcher.placement

    @property
    def name(self) -> str:
        """The dispatcher's name."""
        return self.dispatcher.name

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        """The outputs of all experts, or one for each assignment, for this process's rows.

        Raises:
            ArgumentError: the processes' rows are not alike, or their experts' outputs are not.
            MoebiusError: the call cannot be distributed: transforms of torch.func, records of mixtures inside experts.
        """
        self._check_call()
        if routing.selection is None:
            return self._run_all(pool, x)
        return self._run_selected(pool, routing.selection, x)

    def _run_selected(self, pool: Pool, selection: Selection, x: Tensor) -> Tensor:
        order, counts = sort_by_expert(selection.expert_A, selection.kept_A, len(pool))
        send_counts = self.placement.split(counts.tolist())
        order = order[: sum(map(sum, send_counts))]
        trip = _Trip(self.dispatcher, x, send_counts, len(self.placement.experts))
        rows, values = trip.send_rows(x, selection.row_A[order])
        local_numbers = torch.arange(len(self.placement.experts), device=x.device).repeat(self.placement.processes)
        counts = torch.tensor([n for part in trip.received_counts for n in part], device=x.device)
        expert_A = local_numbers.repeat_interleave(counts, output_size=len(rows))
        ones = torch.ones(len(rows), device=x.device)
        local = Selection(torch.arange(len(rows), device=x.device), expert_A, ones, ones.bool())
        outputs = trip.return_outputs(self._local_outputs(pool, rows, values, local), pool.stack is None)
        return outputs.new_zeros(len(selection.row_A), *outputs.shape[1:]).index_copy(0, order, outputs)

    def _run_all(self, pool: Pool, x: Tensor) -> Tensor:
        """Every expert's output for every row, (T, E, …)."""
        processes, counts = self.placement.processes, self.placement.counts
        trip = _Trip(self.dispatcher, x, [[len(x)]] * processes, 1)
        rows, values = trip.send_rows(x, torch.arange(len(x), device=x.device).repeat(processes))
        outputs = self._local_outputs(pool, rows, values, None)
        trip.send = [len(x) * count for count in counts]
        trip.receive = [rows * outputs.shape[1] for rows in trip.receive]
        parts = trip.return_outputs(outputs.flatten(0, 1), pool.stack is None).split(trip.send)
        return torch.cat([part.unflatten(0, (len(x), count)) for part, count in zip(parts, counts, strict=True)], 1)

    def _local_outputs(
        self, pool: Pool, rows: Tensor, values: Mapping[str, Tensor], selection: Selection | None
    ) -> Tensor:
        """What this process's experts compute of the rows that arrived: (R, E, …), or one output for each row."""
        numbers = self.placement.experts
        if pool.stack is not None:
            local = Pool(local_stack(pool.stack, len(numbers)))
        else:
            local = Pool([pool.modules[number] for number in numbers])
            # Once more: loading or copying a model may have replaced parameters.
            mark_owned(local.modules, self.placement.processes)
        # Executions read the selection alone.
        unused = torch.zeros(len(rows), len(numbers), device=rows.device)
        routing = Routing(unused, unused, unused, unused, selection)
        # The rows are no longer those of this process's batch, by whose numbers outputs of frozen parts are looked up.
        with row_context(RowContext(values)), OutputCache().serve_rows(torch.arange(len(rows))):
            execution, _ = decide(self.execution, local, routing, rows)
            if selection is not None and execution.everyone:
                return selection.select_outputs(execution.run(local, replace(routing, selection=None), rows))
            return execution.run(local, routing, rows)

    def _check_call(self) -> None:
        if transform_active():
            rule = "transforms of torch.func and forward-mode differentiation do not reach experts of other processes"
            raise MoebiusError(rule, "the model before mb.distributed.expert_parallel")
        if self.placement.has_mixtures and is_recording():
            rule = "a mixture inside an expert is on one process, and a loss of its routing would wait for all of them"
            raise MoebiusError(
                f"mb.record: {rule}", "mb.distributed.expert_parallel(model, mesh, pools=[…]) without it"
            )


class _Trip:
    """One journey of rows to the processes of their experts, and of the outputs back.

    Arguments:
        dispatcher: moves them.
        x: the rows of this process's batch.
        send_counts: for each process, the numbers of rows that go to its experts.
        experts: how many such numbers come from each process.

    Attributes:
        send, receive: the number of rows that go to each process, and come from each.
        received_counts: for each process, the numbers of its rows that go to this process's experts.

    Raises:
        ArgumentError: the rows of some processes have other shapes, number formats or context than those of others.
    """

    def __init__(self, dispatcher: "Dispatcher", x: Tensor, send_counts: Sequence[Sequence[int]], experts: int):
        self.dispatcher, self.placement = dispatcher, dispatcher.placement
        self.values = dict(sorted(current_context().local_values().items())) if self.placement.reads_context else {}
        needs_gradient = any(value.requires_grad for value in (x, *self.values.values()))
        head = [_checksum(x, *self.values, *self.values.values()), int(needs_gradient)]
        numbers = dispatcher.exchange_numbers(
            [[*head, *counts] for counts in send_counts], [len(head) + experts] * self.placement.processes
        )
        if any(part[0] != head[0] for part in numbers):
            rule = "the rows of some processes have other shapes, number formats or context than those of others"
            names = {name: _form(value) for name, value in self.values.items()}
            raise ArgumentError("x", rule, (_form(x), names), "calls alike in every process")
        self.needs_gradient = any(part[1] for part in numbers)
        self.received_counts = [part[len(head) :] for part in numbers]
        self.send, self.receive = ([sum(part) for part in counts] for counts in (send_counts, self.received_counts))
        self.token = torch.zeros((), device=x.device, requires_grad=torch.is_grad_enabled())

    def send_rows(self, x: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The rows that arrive from all processes, and their context.

        Arguments:
            x: the rows of this process's batch.
            rows: numbers of the rows to send, those for the first process first.
        """
        arrived = self._exchange(x.index_select(0, rows))
        return arrived, {name: self._exchange(value.index_select(0, rows)) for name, value in self.values.items()}

    def return_outputs(self, outputs: Tensor, checks: bool) -> Tensor:
        """The outputs of the rows that were sent, in their order.

        Arguments:
            outputs: those of the rows that arrived, in their order.
            checks: whether outputs of experts on several processes may have different shapes.

        Raises:
            ArgumentError: they have.
        """
        if checks:
            numbers = self.dispatcher.exchange_numbers([[_checksum(outputs)]] * len(self.send), [1] * len(self.send))
            if any(part != numbers[self.placement.rank] for part in numbers):
                rule = "experts of other processes give rows of another shape or number format"
                fix = "mb.experts.Adapter(expert, transform=…) or a last layer that makes all outputs alike"
                raise ArgumentError("experts", rule, _form(outputs), fix)
        returned, _ = self.dispatcher.exchange_rows(
            outputs, self.token, self.receive, self.send, 1 / self.placement.divisor
        )
        return returned

    def _exchange(self, values: Tensor) -> Tensor:
        if self.needs_gradient and values.is_floating_point():
            moved, self.token = self.dispatcher.exchange_rows(
                values, self.token, self.send, self.receive, self.placement.divisor
            )
            return moved
        with torch.no_grad():
            return self.dispatcher.exchange_rows(values, self.token, self.send, self.receive, 1)[0]


def _form(value: Tensor) -> tuple[torch.Size, torch.dtype]:
    return value.shape[1:], value.dtype


def _checksum(*values: Any) -> int:
    """A number that is equal where names are, and shapes and number formats of tensors."""
    text = repr([_form(value) if isinstance(value, Tensor) else value for value in values])
    return zlib.crc32(text.encode())
