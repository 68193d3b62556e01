"""Experts of all kinds that an execution may meet."""

from collections.abc import Callable

import torch
from torch import nn

from moebius.core.stack import Stack
from moebius.experts.conv import Conv
from moebius.experts.ffn import FFN
from moebius.experts.linear import Linear
from moebius.experts.mlp import MLP


def _make_activated(number: int) -> nn.Module:
    return nn.Sequential(nn.Tanh(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))


def _make_network(number: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


def _make_unlike(number: int) -> nn.Module:
    if number % 3 == 0:
        return nn.Linear(6, 6)
    return FFN(6, 5) if number % 3 == 1 else nn.Sequential(nn.Linear(6, 6), nn.Tanh())


# Name → how to make the expert of a number, the shape of a row, and what the experts are: a stack of FFN, of dense
# layers, or of anything, or a list.
POOLS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...], str]] = {
    "gelu": (lambda _: FFN(6, 5), (6,), "ffn"),
    "relu2": (lambda _: FFN(6, 5, "relu2", bias=False), (6,), "ffn"),
    "swiglu": (lambda _: FFN(6, 5, "swiglu", bias=False), (6,), "ffn"),
    "geglu": (lambda _: FFN(8, 5, "geglu"), (2, 2, 2), "ffn"),
    "linear": (lambda _: Linear(6, 4), (6,), "dense"),
    "mlp": (lambda _: MLP(16, 3, [5, 4], "silu"), (1, 4, 4), "dense"),
    "sequential": (_make_activated, (6,), "dense"),
    "flattened": (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), (3, 2), "dense"),
    "tokens": (lambda _: MLP(6, 3, [5]), (2, 6), "any"),
    "conv": (lambda _: Conv(1, 4, 3, [2], [5]), (1, 4, 4), "any"),
    "network": (_make_network, (1, 4, 4), "any"),
    "image to image": (lambda _: nn.Conv2d(1, 2, 3), (1, 4, 4), "any"),
    "buffers": (lambda _: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval(), (6,), "any"),
    "list": (lambda _: FFN(6, 5), (6,), "list"),
    "unlike": (_make_unlike, (6,), "list"),
}


def make_pool(
    name: str, count: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[nn.ModuleList | Stack, tuple[int, ...]]:
    """Experts of one of `POOLS`, always the same, and the shape of their rows."""
    torch.manual_seed(0)
    make, shape, form = POOLS[name]
    experts = [make(number) for number in range(count)]
    return (nn.ModuleList if form == "list" else Stack)(experts).to(device, dtype), shape
