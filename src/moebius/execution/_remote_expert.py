"""`RemoteExpert`: an expert of a list that another process holds."""

from typing import Any, NoReturn

from torch import nn

from moebius.kit.errors import MoebiusError


class RemoteExpert(nn.Module):
    """Stands in a list of experts for one that another process holds; it has no parameters.

    Attributes:
        network: the expert without values, its tensors on the meta device; no registered part.

    Arguments:
        network: the expert, which loses its values.
        owner: the process that holds it, by its rank in the mesh's dimension.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, owner: int):
        super().__init__()
        vars(self)["network"] = network.to("meta")
        self.owner = owner

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error: only its process calls an expert."""
        raise MoebiusError(f"this expert is on process {self.owner}", "call the mixture, in every process")

    def extra_repr(self) -> str:
        """The process that holds the expert."""
        return f"owner={self.owner}, network={type(self.network).__name__}"
