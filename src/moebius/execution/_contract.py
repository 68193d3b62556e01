"""What an execution is."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from moebius.core.routing import Routing
from moebius.core.stack import Stack
from moebius.execution._pool import Pool
from moebius.kit.errors import ArgumentError


class Execution:
    """The contract of executions: moving rows to experts and collecting their outputs.

    A subclass says in `refuses` what it cannot run, and runs everything else in `run` exactly as `loop` does. One that
    adds up what the chosen experts say of a row by itself has a method `sum` besides. It lives in a file of its name,
    keeps no state, and `mb.Mixture(…, execution=…)` takes its name or an instance; the conformance tests hold it to
    this by its being there.

    Attributes:
        everyone: whether it computes every expert's output for every row, whatever the router chose.
    """

    everyone: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The kind, which is the name of its file; outside of this room the name of the class."""
        room, _, file = type(self).__module__.rpartition(".")
        return file if room == "moebius.execution" else type(self).__name__

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Why it cannot run these experts on these rows, as the end of a sentence; None where it can."""
        return None

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        """The experts' outputs: (T, E, …) without a selection, else one for each assignment, (A, …), 0 where dropped.

        An expert that no row chose has gradients of zero, not None.
        """
        raise TypeError(f"{type(self).__name__} is an execution without a method run")

    def sum(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor | None:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row, (T, …); None where that is no work saved.

        A mixture asks for it where the combine is a plain weighted sum and the router selects, so that the outputs of
        single assignments need not be written.
        """
        return None

    def __call__(self, experts: Sequence[nn.Module] | nn.ModuleList | Stack, routing: Routing, x: Tensor) -> Tensor:
        """`run` for experts that are in no mixture.

        Raises:
            ArgumentError: it refuses.
        """
        pool = Pool(experts)
        self.insist(pool, routing, x)
        return self.run(pool, routing, x)

    def insist(self, pool: Pool, routing: Routing, x: Tensor) -> None:
        """Raise what it refuses, for somebody who named it.

        Raises:
            ArgumentError: it refuses.
        """
        why = self.refuses(pool, routing, x)
        if why is not None:
            raise ArgumentError("execution", f"{self.name} {why}", self.name, 'execution="auto"')
