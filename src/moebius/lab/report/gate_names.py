"""The name of a gate, which is its module path; and what the names of a model's gates say about its mixtures."""

import re
from collections.abc import Sequence


def gate_name(mixture: str) -> str:
    """The name of the gate of the mixture at a module path, as in the log of `mb.record`.

    Example:
        >>> gate_name(""), gate_name("experts.0"), gate_name("1.mixture")
        ('gate', 'experts.0.gate', '1.mixture.gate')
    """
    return f"{mixture}.gate".removeprefix(".")


def expert_path(gate: str, expert: int) -> str:
    """The module path of an expert of a gate.

    Example:
        >>> expert_path("gate", 0), expert_path("1.mixture.gate", 2)
        ('experts.0', '1.mixture.experts.2')
    """
    return f"{gate.removesuffix('gate')}experts.{expert}"


def expert_index(gate: str, path: str) -> int | None:
    """Which expert of a gate is, or contains, the module at a path; None for modules elsewhere.

    Example:
        >>> expert_index("gate", "experts.1.gate"), expert_index("experts.1.gate", "experts.0")
        (1, None)
    """
    match = re.match(rf"{re.escape(gate.removesuffix('gate'))}experts\.(\d+)(?:\.|$)", path)
    return int(match[1]) if match else None


def parent_gate(gate: str, gates: Sequence[str]) -> str | None:
    """The gate whose expert directly contains another gate; None for a gate that no expert contains.

    Example:
        >>> parent_gate("experts.0.1.experts.2.gate", ["gate", "experts.0.1.gate"])
        'experts.0.1.gate'
    """
    return max((around for around in gates if expert_index(around, gate) is not None), key=len, default=None)


def outer_gates(gates: Sequence[str]) -> list[str]:
    """The gates whose mixtures are in no other gate's mixture, in order; a model may have several in sequence.

    Example:
        >>> outer_gates(["gate", "experts.0.gate"]), outer_gates(["1.mixture.gate", "3.mixture.gate"])
        (['gate'], ['1.mixture.gate', '3.mixture.gate'])
    """
    mixtures = {gate: gate.removesuffix("gate") for gate in gates}
    return [
        gate for gate in gates if not any(gate.startswith(path) for around, path in mixtures.items() if around != gate)
    ]


def inner_gate(expert: str, gates: Sequence[str]) -> str | None:
    """The first of the outermost gates inside the expert at a module path; None where that expert is a leaf.

    Example:
        >>> inner_gate("experts.0", ["gate", "experts.0.1.gate", "experts.0.1.experts.2.gate"])
        'experts.0.1.gate'
    """
    return next(iter(outer_gates([gate for gate in gates if gate.startswith(f"{expert}.")])), None)
