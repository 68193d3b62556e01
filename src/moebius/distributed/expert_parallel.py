"""`expert_parallel`: the experts of a model on several processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from moebius.core.expert_views import ExpertViews
from moebius.core.module_views import named_tensors
from moebius.core.routing import Router
from moebius.core.row_context import takes_context
from moebius.core.stack import Stack
from moebius.distributed.all_to_all import AllToAll
from moebius.distributed.dispatcher import Dispatcher
from moebius.distributed.layout import Layout
from moebius.distributed.placement import Placement, expert_counts, mark_owned
from moebius.execution._remote_expert import RemoteExpert
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture

Model = TypeVar("Model", bound=nn.Module)
Pools = dict[str, tuple[nn.Module, nn.Module]]


def expert_parallel(
    model: Model,
    mesh: DeviceMesh | None,
    dim: str = "expert",
    gradients: str = "sum",
    pools: Iterable[str] | None = None,
    per_process: bool = False,
    dispatcher: Callable[[Placement], Dispatcher] = AllToAll,
) -> Model:
    """Distribute the experts of a model over processes; each process calls the model with its own rows.

    A row travels to the processes of its experts, and their outputs travel back to it. So a process holds E / n of the
    experts' parameters, gradients and optimizer state, and everything else of the model in full. Equal experts in an
    `mb.Stack` become DTensors, `Shard(0)` over the mesh. Of a list each process holds whole modules, also unlike ones;
    the others are `RemoteExpert`s without parameters, and the state dict has the keys of this process's experts.

    **Gradients.** Call backward in every process, on the loss of its own rows. A parameter of an expert then has the
    gradient of the *sum* of all processes' losses, or with `gradients="mean"` of their mean: once, in the process that
    holds it. The other parameters have the gradient of this process's loss, until they are reduced:

    - by `mb.distributed.reduce_gradients(model)` after the last backward of a step: sum or mean, as here;
    - by `DistributedDataParallel(model)`, which leaves the experts alone, or FSDP2: both give the *mean*, so take
      `gradients="mean"`.

    With "mean" and `loss.mean()` over as many rows in each process, gradients are those of one process on all rows.
    With "sum" that is so for sums over rows, divided by the number of all rows. Losses of routings are computed by
    every process for the rows of all of them: right with "mean"; with "sum" divide them by the number of processes.

    On a mesh of more dimensions the processes of the other ones hold the same experts and have other rows. Then
    `reduce_gradients` reduces experts over them, or FSDP2 shards stacks there: `fully_shard(stack, mesh=mesh["data"])`.

    The processes begin with the values of the first one. Parameters of stacks are replaced: make the optimizer
    afterwards, and compute the norm of gradients by `mb.distributed.clip_grad_norm_`.

    Arguments:
        model: with `Mixture`, `SparseFFN`, `MultiGateMixture`, `CGC`, `PLE` or `PositionMixture` inside. An expert of a
            list that holds a mixture is on one process as a whole. Other layers stay in every process.
        mesh: of all processes; see `torch.distributed.device_mesh.init_device_mesh`.
        dim: the dimension whose processes share the experts, of a mesh with several.
        gradients: "sum" or "mean" over the processes.
        pools: the module paths of the lists or stacks to distribute ("layers.3.mixture.experts"); by default all.
        per_process: whether routers whose choice depends on the whole batch may choose among each process's own rows.
            A capacity always counts those.
        dispatcher: makes what moves the rows.

    Returns:
        The model itself. With one process in the dimension nothing is changed.

    Raises:
        ArgumentError: torch.distributed was not initialised; the mesh does not fit; there are fewer experts than
            processes, or no pool; a router chooses over the whole batch; experts have hooks, are sharded, share a
            parameter, or hold a router with a bias.

    Example:
        >>> import moebius as mb
        >>> mb.distributed.expert_parallel(torch.nn.Linear(2, 2), None)
        Traceback (most recent call last):
        moebius.kit.errors.MoebiusError: experts are distributed over processes, and there is one
          fix: torchrun --nproc-per-node 2 script.py, and torch.distributed.init_process_group("gloo") in it

    Reference: Lepikhin et al. 2020, GShard, section 3; that processes own unlike experts is ours.
    """
    if mesh is None or not (dist.is_available() and dist.is_initialized()):
        fix = 'torchrun --nproc-per-node 2 script.py, and torch.distributed.init_process_group("gloo") in it'
        raise MoebiusError("experts are distributed over processes, and there is one", fix)
    layout = Layout.of(mesh, dim, gradients)
    chosen = _choose_pools(model, pools)
    for path, (layer, pool) in chosen.items():
        _check_pool(path, pool, layout)
        if not per_process:
            _check_router(path, layer)
    _check_apart(model, chosen)
    _equal_values(model, mesh.device_type)
    if layout.processes > 1:
        for pool in {id(pool): pool for _, pool in chosen.values()}.values():
            _distribute_pool(pool, layout, dispatcher)
    vars(model)["expert_layout"] = layout
    pool_paths = tuple(f"{path}." for path in chosen) if layout.processes > 1 else ()
    named = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    ignored = [name for name in named if pool_paths and name.startswith(pool_paths)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
    return model


def _layer_pools(layer: nn.Module) -> dict[str, nn.Module]:
    """The pools of experts of a layer by their names in it."""
    if isinstance(layer, CGC):
        pools = {f"experts.{task}": pool for task, pool in layer.experts.items()}
        return pools | ({"shared": layer.shared} if len(layer.shared) else {})  # type: ignore[arg-type]
    return {"experts": layer.experts} if isinstance(layer, Mixture | MultiGateMixture | PositionMixture) else {}


def _all_pools(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Path, layer and pool of the pools that are not inside an expert of another one."""
    outer: list[str] = []
    for path, layer in model.named_modules():
        if not path.startswith(tuple(outer)):
            for name, pool in _layer_pools(layer).items():
                outer.append(f"{path}.{name}.".lstrip("."))
                yield outer[-1].removesuffix("."), layer, pool


def _choose_pools(model: nn.Module, paths: Iterable[str] | None) -> Pools:
    pools = {path: (layer, pool) for path, layer, pool in _all_pools(model)}
    if not pools:
        rule = "needs a mixture with experts to distribute"
        raise ArgumentError("model", rule, type(model).__name__, "mb.Mixture(gate, experts), or mb.layers.SparseFFN")
    if paths is None:
        return pools
    paths = [paths] if isinstance(paths, str) else [*paths]
    unknown = next((path for path in paths if path not in pools), None)
    if unknown is not None or not paths:
        raise ArgumentError("pools", f"needs some of {', '.join(pools)}", unknown, f"pools={[*pools][:1]}")
    return {path: pools[path] for path in paths}


def _check_pool(path: str, pool: nn.Module, layout: Layout) -> None:
    if not isinstance(pool, Stack | nn.ModuleList) or "parametrizations" in pool._modules:
        rule = "needs a list of experts or an mb.Stack, before wrappers and parametrisations"
        raise ArgumentError(path, rule, type(pool).__name__, "mb.distributed.expert_parallel first")
    if "dispatcher" in vars(pool):
        raise ArgumentError(path, "needs experts that are not distributed yet", "distributed", "a model freshly made")
    counts = expert_counts(len(pool), layout.processes, isinstance(pool, Stack))
    if not all(counts):
        rule = f"needs an expert for each of {layout.processes} processes, and they would hold {counts} of them"
        raise ArgumentError(path, rule, len(pool), "pools=[…] without it, or another number of processes")
    for name, *_, tensor in named_tensors(pool):
        if isinstance(tensor, DTensor) or tensor.device.type != layout.mesh.device_type:
            place = "a sharded tensor" if isinstance(tensor, DTensor) else str(tensor.device)
            rule = f"needs ordinary tensors on {layout.mesh.device_type}, as the mesh has"
            raise ArgumentError(f"{path}.{name}", rule, place, "model.to(…) and expert_parallel, then fully_shard")
    if isinstance(pool, Stack) and pool.differing_experts():
        rule = "needs experts without hooks, modes or settings of their own"
        raise ArgumentError(path, rule, sorted(pool.differing_experts()), "moe.experts.unstacked(), for a list")
    for name, part in pool.named_modules():
        if isinstance(part, Router) and type(part).step is not Router.step and getattr(part, "bias", True) is not None:
            rule = "is inside an expert, which is on one process, and its bias waits for the counts of all processes"
            raise ArgumentError(f"{path}.{name}", rule, type(part).__name__, "bias_rate=0 and a balance loss")


def _check_router(path: str, layer: nn.Module) -> None:
    for part in layer.router.modules():  # type: ignore[union-attr]
        if isinstance(part, Router) and not part.rows_independent:
            rule = "chooses over the whole batch, and a process has its own rows: the result depends on their number"
            fix = "expert_parallel(…, per_process=True), to choose among the rows of each process"
            raise ArgumentError(f"{path}: router", rule, type(part).__name__, fix)


def _check_apart(model: nn.Module, chosen: Pools) -> None:
    """Check that no parameter of a list's expert is one of another part, too."""
    holders: dict[int, str] = {}
    expert_paths = [f"{path}.{n}." for path, (_, pool) in chosen.items() for n in range(len(pool))]  # type: ignore[arg-type]
    paths_by_pool: dict[int, str] = {}
    shared = {path for path, (_, pool) in chosen.items() if paths_by_pool.setdefault(id(pool), path) != path}
    for name, *_, tensor in named_tensors(model, every_name=True):
        if name.startswith(tuple(f"{path}." for path in shared)):
            continue
        holder = next((path for path in expert_paths if name.startswith(path)), "")
        if holders.setdefault(id(tensor), holder) != holder:
            rule = "is a tensor of two experts, or of an expert and another part, which may be on two processes"
            raise ArgumentError(name, rule, tuple(tensor.shape), "copy.deepcopy(part), so that each has its own")


@torch.no_grad()
def _equal_values(model: nn.Module, device: str) -> None:
    """Give the model of each process the values of the first one's."""
    for tensor in {id(tensor): tensor for *_, tensor in named_tensors(model)}.values():
        if tensor.is_meta:
            raise ArgumentError("model", "needs values", "tensors on the meta device", "model.to_empty, and a start")
        values = tensor.detach().to(device).contiguous()
        dist.broadcast(values, 0)
        tensor.copy_(values)


def _distribute_pool(pool: Any, layout: Layout, dispatcher: Callable[[Placement], Dispatcher]) -> None:
    modules = [*pool.modules(), *(pool.template.modules() if isinstance(pool, Stack) else ())]
    placement = Placement(
        layout.expert_mesh,
        expert_counts(len(pool), layout.processes, isinstance(pool, Stack)),
        layout.mesh.get_local_rank(layout.dim),
        layout.divisor,
        reads_context=any(takes_context(type(part)) for part in modules),
        has_mixtures=any(isinstance(part, Router) for part in modules),
    )
    if isinstance(pool, Stack):
        _shard_stack(pool, placement)
    else:
        for number in range(len(pool)):
            if number not in placement.experts:
                pool[number] = RemoteExpert(pool[number], placement.owner(number))
        mark_owned(pool, placement.processes)
    vars(pool)["dispatcher"] = dispatcher(placement)


def _shard_stack(stack: Stack, placement: Placement) -> None:
    experts = placement.experts
    for name, *_, whole in [*named_tensors(stack)]:
        shard = DTensor.from_local(
            whole.detach()[experts.start : experts.stop].clone(),
            placement.mesh,
            [Shard(0)],
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )
        if isinstance(whole, nn.Parameter):
            stack._parameters[name] = nn.Parameter(shard, whole.requires_grad)
        else:
            stack._buffers[name] = shard
    stack._views = ExpertViews()
