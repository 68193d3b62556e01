"""The models that are trained on several processes, and how."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import moebius as mb

ROWS, FEATURES, CLASSES, EXPERTS = 24, 6, 3, 4
WORLDS = (2, 4)


@dataclass(frozen=True)
class Case:
    """A model and how it is trained.

    Arguments:
        build: makes the model, rows → outputs.
        steps: how many.
        pieces: how many backward passes a step has.
        balance: the factor of the balance loss.
        by_process: whether one process routes the rows of each process by themselves, too.
        options: of `expert_parallel`.
        way: how gradients of what is outside of the experts are reduced, and experts on a second dimension of the mesh.
        checkpoints: whether activation checkpointing repeats the forward.
        optimizer: its class and options.
        sizes: shares of a batch that the processes have; None for equal ones.
        worlds: numbers of processes.
    """

    build: Callable[[], nn.Module]
    steps: int = 3
    pieces: int = 1
    balance: float = 0.0
    by_process: bool = False
    options: dict[str, Any] | None = None
    way: str = "reduce"
    checkpoints: bool = False
    optimizer: tuple[str, dict[str, Any]] = ("SGD", {"lr": 0.05, "momentum": 0.9})
    sizes: tuple[int, ...] | None = None
    worlds: tuple[int, ...] = WORLDS


def _body(width: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, CLASSES))


def _gate(experts: int = EXPERTS) -> nn.Module:
    return mb.gates.Linear(FEATURES, experts)


def _stack(experts: int = EXPERTS) -> mb.Stack:
    return mb.Stack([_body() for _ in range(experts)])


def _unlike() -> list[nn.Module]:
    frozen = nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.Sigmoid()).requires_grad_(False)
    return [_body(), nn.Linear(FEATURES, CLASSES), _body(7), frozen, mb.experts.MLP(FEATURES, CLASSES)]


def _idle() -> nn.Module:
    """The last two experts get no row."""
    moe = mb.Mixture(_gate(), _unlike()[:EXPERTS], mb.routers.TopK(1))
    with torch.no_grad():
        moe.gate.linear.bias[2:] = -100.0  # type: ignore[union-attr]
    return moe


def _nested() -> nn.Module:
    inner = mb.Mixture(_gate(3), _stack(3), mb.routers.TopK(2))
    return mb.Mixture(
        _gate(), [_body(), inner, nn.Sequential(nn.Tanh(), inner_copy(inner)), _body(5)], mb.routers.TopK(2)
    )


def inner_copy(moe: nn.Module) -> nn.Module:
    return mb.Mixture(_gate(2), [_body(4), nn.Linear(FEATURES, CLASSES)])


def _network() -> nn.Module:
    """Two layers in a network, the first of them with a shared expert."""
    layer = mb.layers.SparseFFN(FEATURES, 8, experts=EXPERTS, k=2, shared=1)
    bias = mb.routers.TopK(2, bias_rate=0.02, experts=EXPERTS)
    return nn.Sequential(
        nn.Linear(FEATURES, FEATURES), nn.LayerNorm(FEATURES), layer, mb.Mixture(_gate(), _stack(), bias)
    )


class Shifted(nn.Linear):
    """An expert that reads a number beside each row."""

    def forward(self, x: Tensor, context: Any) -> Tensor:
        return super().forward(x) + context["shift"].unsqueeze(1) * x[:, :1]


class Summed(nn.Module):
    """The sum of the outputs of several tasks."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.layer(x).values())  # type: ignore[return-value]


def _several() -> nn.Module:
    gates = {task: _gate() for task in ("first", "second")}
    towers = {task: nn.Linear(CLASSES, CLASSES) for task in gates}
    return Summed(mb.layers.MultiGateMixture(gates, _unlike()[:EXPERTS], towers, mb.routers.TopK(1)))


def _progressive() -> nn.Module:
    gates = {task: _gate(5) for task in ("first", "second")}
    own = {task: [_body()] for task in gates}
    return Summed(mb.layers.CGC(gates, own, _stack(), router=mb.routers.TopK(2)))


def _levels() -> nn.Module:
    def level(width: int, *more: str) -> nn.Module:
        gates = {name: nn.Linear(width, 6 if name in more else 5) for name in ("first", "second", *more)}
        own = {task: [nn.Linear(width, CLASSES)] for task in ("first", "second")}
        shared = [nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, CLASSES)) for _ in range(EXPERTS)]
        return mb.layers.CGC(gates, own, shared, router=mb.routers.TopK(2))

    return Summed(mb.layers.PLE([level(FEATURES, "shared"), level(CLASSES)]))


def _normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def _mixture(
    router: Callable[[], mb.Router], pool: Callable[[], Any] = _stack, **options: Any
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        experts = pool()
        return mb.Mixture(_gate(router().gate_outputs(len(experts))), experts, router(), **options)

    return build


def _top(k: int) -> Callable[[], mb.Router]:
    return lambda: mb.routers.TopK(k)


def _biased() -> mb.Router:
    return mb.routers.TopK(2, bias_rate=0.02, experts=EXPERTS)


MEAN = {"gradients": "mean"}
CASES = {
    "top-1": Case(_mixture(_top(1)), balance=0.1, options=MEAN),
    "top-2 of a stack": Case(_mixture(_biased), steps=50, balance=0.1, options=MEAN),
    "top-2 of unlike experts": Case(_mixture(_top(2), _unlike), steps=50, balance=0.1, options=MEAN),
    "sums over uneven rows": Case(_mixture(_top(2), _unlike), sizes=(15, 0, 2, 7)),
    "every expert": Case(_mixture(mb.routers.Soft, lambda: _stack(7)), options=MEAN),
    "every unlike expert": Case(_mixture(mb.routers.Soft, _unlike, combine=mb.LogMixture()), options=MEAN),
    "heads": Case(_mixture(lambda: mb.routers.Heads(mb.routers.TopK(1), heads=2)), options=MEAN),
    "capacity drops": Case(_mixture(lambda: mb.routers.Switch(capacity=0.5)), by_process=True, options=MEAN),
    "expert choice": Case(
        _mixture(lambda: mb.routers.ExpertChoice(1.0)), by_process=True, options={**MEAN, "per_process": True}
    ),
    "experts without rows": Case(_idle, options=MEAN),
    "accumulation": Case(_mixture(_biased, lambda: _unlike()[:4]), pieces=2, balance=0.1, options=MEAN),
    "accumulated sums": Case(_mixture(_top(2)), pieces=2, way="reduce"),
    "activation checkpointing": Case(_mixture(_top(2), _unlike), checkpoints=True, balance=0.0, options=MEAN),
    "nested": Case(_nested, options=MEAN),
    "network": Case(_network, balance=0.1, options=MEAN),
    "context": Case(_mixture(_top(2), lambda: [Shifted(FEATURES, CLASSES) for _ in range(4)]), options=MEAN),
    "batch normalisation": Case(_mixture(mb.routers.Soft, lambda: [_normalised() for _ in range(4)]), options=MEAN),
    "several gates": Case(_several, options=MEAN),
    "a pool of several": Case(_progressive, options={**MEAN, "pools": ["layer.shared"]}),
    "pools of levels": Case(_levels, options={**MEAN, "pools": ["layer.levels.0.shared", "layer.levels.1.shared"]}),
    "fused Adam": Case(_network, optimizer=("AdamW", {"lr": 1e-2, "eps": 1e-3, "fused": True}), options=MEAN),
    "foreach Adam": Case(_network, optimizer=("AdamW", {"lr": 1e-2, "eps": 1e-3, "foreach": True}), options=MEAN),
    "DDP": Case(_network, balance=0.1, way="ddp", options=MEAN),
    "DDP of unlike experts": Case(_mixture(_top(2), _unlike), way="ddp", options=MEAN),
    "FSDP2": Case(_network, balance=0.1, way="fsdp", options=MEAN),
    "2 x 2": Case(_network, way="mesh", balance=0.1, options=MEAN, worlds=(4,)),
    "2 x 2 sums": Case(_mixture(_top(2), _unlike), way="mesh", worlds=(4,)),
    "2 x 2 FSDP2": Case(_network, steps=50, balance=0.1, way="mesh fsdp", options=MEAN, worlds=(4,)),
}
# From this number of steps on a case is trained in fp32, too; in fp64 three steps are enough.
MANY_STEPS = 50


def formats(case: Case) -> Iterator[tuple[str, Case, torch.dtype]]:
    """The number formats of a case, and how many steps it has in each."""
    yield "fp64", replace(case, steps=min(case.steps, 3)), torch.float64
    if case.steps >= MANY_STEPS:
        yield "fp32", case, torch.float32


def stored_stack() -> nn.Module:
    return mb.layers.SparseFFN(FEATURES, 8, experts=8, k=2, shared=1)


def stored_list() -> nn.Module:
    inner = mb.Mixture(_gate(2), [mb.experts.MLP(FEATURES, CLASSES), mb.experts.Linear(FEATURES, CLASSES)])
    unlike = [mb.experts.Linear(FEATURES, CLASSES), mb.experts.MLP(FEATURES, CLASSES), inner]
    return mb.Mixture(_gate(5), [*unlike, mb.experts.MLP(FEATURES, CLASSES, [4]), mb.experts.Linear(FEATURES, CLASSES)])


SAVED = {
    "stack": Case(stored_stack, options=MEAN),
    "list": Case(stored_list, options=MEAN),
    "2 x 2 FSDP2": Case(stored_stack, options=MEAN, way="mesh fsdp"),
}
