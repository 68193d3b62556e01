"""Runs all experts of a mixture before a gate that reads their outputs."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS
from moebius.core.gate_call import call_gate
from moebius.core.row_context import current_context, row_context


class OutputReading:
    """The call of a gate that reads the experts' outputs, and these outputs for what comes after it.

    Arguments:
        run: rows → all experts' outputs (T, E, C).

    Attributes:
        outputs: of the last call; None before.
    """

    def __init__(self, run: Callable[[Tensor], Tensor]):
        self.run = run
        self.outputs: Tensor | None = None

    def __call__(self, gate: nn.Module, x: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """The gate's scores, and further values that it gives."""
        self.outputs = self.run(x)
        with row_context(current_context().with_values({EXPERT_OUTPUTS: self.outputs})):
            return call_gate(gate, x)
