"""`Dispatcher`: the contract of what moves rows between processes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from moebius.distributed._dispatched import Dispatched
from moebius.distributed.placement import Placement
from moebius.execution._contract import Execution


class Dispatcher(ABC):
    """The contract of dispatchers: rows travel to the processes of their experts, and outputs travel back.

    A dispatcher stands between the router and the execution: the execution that a mixture was made with runs the
    experts of each process on the rows that arrive there. A subclass moves numbers and rows. One that fuses more than
    that (libraries that sort, quantise and move tokens in one kernel) overrides `around`.

    Arguments:
        placement: where the experts of the pool are.
    """

    def __init__(self, placement: Placement):
        self.placement = placement

    def __deepcopy__(self, memo: dict[int, Any]) -> "Dispatcher":
        return self  # a copy of a model talks with the same processes

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def reason(self) -> str:
        """Why `moe.chosen(x)` names this dispatcher, a sentence."""
        return f"the experts are on {self.placement.processes} processes"

    def around(self, execution: Execution) -> Execution:
        """An execution that moves rows, and runs each process's experts by `execution`."""
        return Dispatched(self, execution)

    @abstractmethod
    def exchange_numbers(self, numbers: Sequence[Sequence[int]], receive: Sequence[int]) -> list[list[int]]:
        """Send a list of whole numbers to each process, and return the list that each process has sent.

        Arguments:
            numbers: a list for each process.
            receive: the length of the list that each process sends.
        """

    @abstractmethod
    def exchange_rows(
        self, values: Tensor, token: Tensor, send: Sequence[int], receive: Sequence[int], factor: float
    ) -> tuple[Tensor, Tensor]:
        """Send rows to the processes, and return the rows that they have sent, process after process.

        Backward sends the gradients the other way, times `factor`. It runs in every process or in none, since a
        collective that one process leaves out makes the others wait: the token, a number that each call takes and
        returns, keeps the call in the graph where no expert of this process needs a gradient.

        Arguments:
            values: rows (sum(send), …), those for the first process first.
            token: the number that the call before returned.
            send, receive: how many rows go to each process, and come from each.
            factor: of the gradients.
        """
