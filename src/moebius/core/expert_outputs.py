"""Gates that read what the experts give for a row."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError

# The entry of the context in which a gate receives the experts' outputs. A gate that names it in its `context_keys` is
# called after all experts have run.
EXPERT_OUTPUTS = "expert_outputs"


def reads_expert_outputs(gate: nn.Module) -> bool:
    """Whether a gate scores by the experts' outputs, so that all experts run before it.

    Example:
        >>> import moebius as mb
        >>> reads_expert_outputs(mb.gates.OwnMass([[0], [1]])), reads_expert_outputs(mb.gates.Linear(4, 2))
        (True, False)
    """
    return EXPERT_OUTPUTS in getattr(gate, "context_keys", ())


def read_expert_outputs(context: Mapping[str, Any] | None, x: Tensor, experts: int) -> Float[Tensor, "T E C"]:
    """The experts' outputs for the rows of a call, (T, E, C).

    Raises:
        ArgumentError: the context has none, or those of other rows or another number of experts.
    """
    outputs = None if context is None else context.get(EXPERT_OUTPUTS)
    if not isinstance(outputs, Tensor):
        rule = "needs the experts' outputs, which a mixture gives its gate"
        fix = "mb.Mixture(gate, experts), or gate(x, {'expert_outputs': outputs})"
        raise ArgumentError(f"context[{EXPERT_OUTPUTS!r}]", rule, outputs, fix)
    if outputs.ndim != 3 or outputs.shape[:2] != (len(x), experts):
        rule = f"needs one vector of outputs for each of {len(x)} rows and {experts} experts"
        fix = f"a tensor of shape ({len(x)}, {experts}, C)"
        raise ArgumentError(f"context[{EXPERT_OUTPUTS!r}]", rule, tuple(outputs.shape), fix)
    return outputs
