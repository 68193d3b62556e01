"""The contract of executions."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from moebius.core.routing import Routing
from moebius.core.stack import Stack
from moebius.execution._pool import Pool
from moebius.kit.errors import ArgumentError


class Execution:
    """The contract of executions: an execution moves rows to experts and collects their outputs.

    In `refuses` a subclass names what it cannot run; everything else it runs in `run`, with the results of `loop`. A
    subclass that adds up the weighted outputs of each row's experts itself also has a method `sum`. A subclass keeps no
    state and stands in a file of its name; `mb.Mixture(…, execution=…)` takes that name or an instance. The conformance
    tests run for every file of this package.

    Attributes:
        everyone: whether `run` computes every expert's output for every row, whatever the router chose.
    """

    everyone: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The kind, which is the name of the file; for a class outside of this package the name of the class."""
        room, _, file = type(self).__module__.rpartition(".")
        return file if room == "moebius.execution" else type(self).__name__

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Why this execution cannot run these experts on these rows, as the end of a sentence; None where it can."""
        return None

    def choose(self, pool: Pool, routing: Routing, x: Tensor) -> tuple["Execution", str]:
        """The execution that runs these experts on these rows, and the reason: this one, or another that it leaves to.

        Raises:
            ArgumentError: `refuses` gives a reason.
        """
        self.check_accepts(pool, routing, x)
        return self, "the mixture was made with it"

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        """The experts' outputs: (T, E, …) without a selection, else one for each assignment, (A, …), 0 where dropped.

        The parameters of an expert without rows get gradients of zero, not None.
        """
        raise TypeError(f"{type(self).__name__} is an execution without a method run")

    def sum(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor | None:
        """Σ_a weight_a · expert_a(x_a) over the assignments a of each row, (T, …); None where this saves no work.

        A mixture calls it where the combine is a plain weighted sum and the router selects: then the outputs of single
        assignments need not be written to memory.
        """
        return None

    def __call__(self, experts: Sequence[nn.Module] | nn.ModuleList | Stack, routing: Routing, x: Tensor) -> Tensor:
        """Call `run` for experts outside of a mixture.

        Raises:
            ArgumentError: `refuses` gives a reason.
        """
        pool = Pool(experts)
        self.check_accepts(pool, routing, x)
        return self.run(pool, routing, x)

    def check_accepts(self, pool: Pool, routing: Routing, x: Tensor) -> None:
        """Raise the reason of `refuses` as an error.

        Raises:
            ArgumentError: `refuses` gives a reason.
        """
        reason = self.refuses(pool, routing, x)
        if reason is not None:
            raise ArgumentError("execution", f"{self.name} {reason}", self.name, 'execution="auto"')
