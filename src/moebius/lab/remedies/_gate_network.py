"""A gate's network with the outputs of the whole model in the place of its scores."""

import copy

import torch
from torch import Tensor, nn

from moebius.lab.remedies._fresh import fresh


class GateNetwork(nn.Module):
    """The network of a gate, with a last linear layer for the model's outputs, drawn anew.

    Arguments:
        gate: whose last linear layer gives the scores; it stays as it is.
        outputs: numbers for each row.
        seed: of the draw.
    """

    def __init__(self, gate: nn.Module, outputs: int, seed: int = 0):
        super().__init__()
        again = fresh(gate, seed)
        network = copy.deepcopy(gate) if again is None else again
        name, last = last_linear(network)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            layer = nn.Linear(last.in_features, outputs, last.bias is not None)
        around, _, attribute = name.rpartition(".")
        if name:
            setattr(network.get_submodule(around), attribute, layer.to(last.weight))
        self.network = network if name else layer.to(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of each row."""
        return self.network(x)


def last_linear(gate: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of a gate's last linear layer.

    Raises:
        LookupError: it has none.
    """
    layers = [(name, part) for name, part in gate.named_modules() if type(part) is nn.Linear]
    if not layers:
        raise LookupError(f"{type(gate).__name__} has no linear layer that gives its scores")
    return layers[-1]


def gate_network(gate: nn.Module, outputs: int, seed: int = 0) -> GateNetwork | None:
    """The network; None for a gate that gives its scores in another way, or learns nothing.

    Example:
        >>> import moebius as mb
        >>> network = gate_network(mb.gates.MLP(features=4, experts=2), outputs=7)
        >>> network(torch.zeros(3, 4)).shape
        torch.Size([3, 7])
    """
    if getattr(gate, "gives_aux", False) or not any(parameter.requires_grad for parameter in gate.parameters()):
        return None
    try:
        return GateNetwork(gate, outputs, seed)
    except LookupError:
        return None
