"""`Layout`: how the processes of a mesh share a model's experts, and which parameters are whose."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from moebius.core.stack import Stack
from moebius.distributed.dispatcher import Dispatcher
from moebius.execution._remote_expert import RemoteExpert
from moebius.kit.errors import ArgumentError, MoebiusError

_MESH_FIX = 'init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "expert"))'
# What gradients may be, as in the argument `gradients`.
GRADIENTS = ("sum", "mean")


@dataclass(frozen=True)
class Layout:
    """How processes share a model.

    Arguments:
        mesh: all processes.
        dim: the index of the dimension whose processes share the experts.
        gradients: "sum" or "mean" over the processes.
    """

    mesh: DeviceMesh
    dim: int
    gradients: str

    @classmethod
    def of(cls, mesh: DeviceMesh, dim: str, gradients: str) -> "Layout":
        """The layout of these arguments of `expert_parallel`.

        Raises:
            ArgumentError: the mesh has no such dimension or not all processes, or gradients are neither sum nor mean.
        """
        names = mesh.mesh_dim_names or ()
        if mesh.ndim > 1 and dim not in names:
            raise ArgumentError("dim", "needs the name of one of the mesh's dimensions", dim, _MESH_FIX)
        if mesh.size() != dist.get_world_size():
            rule = f"needs a mesh of all {dist.get_world_size()} processes: each calls the model with its own rows"
            raise ArgumentError("mesh", rule, tuple(mesh.shape), _MESH_FIX)
        if gradients not in GRADIENTS:
            raise ArgumentError("gradients", 'needs "sum" or "mean"', gradients, 'gradients="mean"')
        return cls(mesh, names.index(dim) if mesh.ndim > 1 else 0, gradients)

    @property
    def expert_mesh(self) -> DeviceMesh:
        """The mesh of the processes that share the experts with this one."""
        return self.mesh if self.mesh.ndim == 1 else self.mesh[(self.mesh.mesh_dim_names or ())[self.dim]]

    @property
    def other_groups(self) -> list[Any]:
        """The process groups of the other dimensions: their processes hold the same experts."""
        return [self.mesh.get_group(dim) for dim in range(self.mesh.ndim) if dim != self.dim]

    @property
    def processes(self) -> int:
        """How many processes share the experts."""
        return self.mesh.size(self.dim)

    @property
    def divisor(self) -> int:
        """What gradients of experts are divided by, among the processes that share them."""
        return 1 if self.gradients == "sum" else self.processes


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model, or of the model inside a wrapper.

    Raises:
        MoebiusError: it has none.
    """
    for part in model.modules():
        if "expert_layout" in vars(part):
            return vars(part)["expert_layout"]
    raise MoebiusError("the model's experts are not shared by processes", "mb.distributed.expert_parallel(model, mesh)")


def shared_pools(model: nn.Module) -> Iterator[tuple[str, Stack | nn.ModuleList, Dispatcher]]:
    """Path, pool and dispatcher of each pool of experts that processes share."""
    for path, part in model.named_modules():
        if isinstance(part, Stack | nn.ModuleList) and "dispatcher" in vars(part):
            yield path, part, vars(part)["dispatcher"]


def expert_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of the experts that this process holds.

    FSDP2 leaves them alone where it is told to: `fully_shard(model, mesh=mesh, ignored_params=…)`.

    Arguments:
        model: what `expert_parallel` returned.

    Example:
        >>> import torch, moebius as mb
        >>> mb.distributed.expert_parameters(torch.nn.Linear(2, 2))
        set()
    """
    return {parameter for _, pool, _ in shared_pools(model) for parameter in pool.parameters()}


def remote_experts(experts: nn.ModuleList) -> Iterator[tuple[int, RemoteExpert]]:
    """Number and stand-in of each expert of a list that another process holds."""
    for number, expert in enumerate(experts):
        if isinstance(expert, RemoteExpert):
            yield number, expert
