"""The dispatcher by torch's all-to-all."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from moebius.distributed._exchange import Exchange
from moebius.distributed.dispatcher import Dispatcher
from moebius.distributed.placement import Placement


class AllToAll(Dispatcher):
    """Move rows by `torch.distributed.all_to_all_single`, with uneven and empty parts, over NCCL, gloo or others.

    A mixture exchanges the numbers of its rows once, for which the host waits for a GPU, and rows twice: a copy of a
    row for each of its assignments, and the outputs. Backward exchanges rows twice.

    Arguments:
        placement: where the experts of the pool are.

    Reference: Lepikhin et al. 2020, GShard: Scaling Giant Models with Conditional Computation and Automatic Sharding,
    section 3, without its capacity: parts are as long as the routing makes them.
    """

    def __init__(self, placement: Placement):
        super().__init__(placement)
        self.group = placement.mesh.get_group()
        self.device = placement.mesh.device_type

    def exchange_numbers(self, numbers: Sequence[Sequence[int]], receive: Sequence[int]) -> list[list[int]]:
        """Send a list of whole numbers to each process, and return the list that each process has sent."""
        sent = torch.tensor([number for part in numbers for number in part], dtype=torch.long, device=self.device)
        received = sent.new_empty(sum(receive))
        dist.all_to_all_single(received, sent, list(receive), [len(part) for part in numbers], self.group)
        return [part.tolist() for part in received.cpu().split(list(receive))]

    def exchange_rows(
        self, values: Tensor, token: Tensor, send: Sequence[int], receive: Sequence[int], factor: float
    ) -> tuple[Tensor, Tensor]:
        """Send rows to the processes, and return the rows that they have sent; see `Dispatcher`."""
        return Exchange.apply(values, token, send, receive, self.group, factor)  # type: ignore[return-value]
