"""A gate that attends to the features of frozen networks."""

import functools
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from moebius.experts.adapter import Adapter
from moebius.experts.features import Features
from moebius.experts.linear import Linear
from moebius.gates.constant import Constant
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.remedies._case import Case
from moebius.lab.remedies._fitting import fit_part, held_out_loss
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import ROWS_AT_ONCE
from moebius.lab.ways._gates import MOST_ROWS, gates_for
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Obstacle
from moebius.layers.attentive_mixture import AttentiveMixture

# Numbers of all networks' features of all rows that are kept at most.
MOST_NUMBERS = 2**26
# Rows on which it is looked where a network's outputs are made.
FEW = 4
# Widths of the state of a gate, and of queries and keys.
STATE, DIM = 16, 32


def attentive_mixture(pool: Pool) -> tuple[AttentiveMixture, str] | Obstacle:
    """The attentive mixture of a pool's networks, each cut into a body and its last layer, and what its gate is."""
    few = next(ordered_batches(pool.take(torch.arange(min(FEW, len(pool)))).rows, FEW)).x
    paths = [_last_layer(expert, few) for expert in pool.experts]
    for name, path in zip(pool.names, paths, strict=True):
        if path is None:
            return Obstacle(f"it is for networks that end with a dense layer, and {name} does not")
    networks: list[tuple[Any, Any]] = list(zip(pool.experts, paths, strict=True))
    widths = [expert.network.get_submodule(path).in_features for expert, path in networks]
    firsts = [0, *accumulate(widths)]
    heads = [_head(expert, path, firsts[-1], first) for (expert, path), first in zip(networks, firsts, strict=False)]
    bodies = [_body(expert, path, firsts[-1], first) for (expert, path), first in zip(networks, firsts, strict=False)]
    most = max(min(MOST_ROWS, MOST_NUMBERS // (firsts[-1] + pool.rows.images[0].numel())), 1)
    if len(pool) > most:
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(pool.seed))[:most]
        pool = pool.take(order.to(pool.outputs.device))

    rows, shape = _with_features(pool, bodies)
    states: dict[str, Any] = {"their features": functools.partial(Constant, STATE)}
    gates = gates_for(pool, STATE)
    if not isinstance(gates, Obstacle):
        states |= {f"their features, as {text} asks": make for text, make in gates.items()}
    ranked = []
    for text, make in states.items():
        state = make().to(pool.outputs.device)
        width = (STATE, firsts[-1], DIM)
        inner = [_Columns(shape.numel(), firsts[-1], kept) for kept in pairwise(firsts)]
        fitted = AttentiveMixture(nn.Sequential(_Row(shape), state), inner, heads, *width, combine=pool.combine())
        fitted.to(pool.outputs.device)
        case = Case(ModelCall(fitted), pool.task.for_model(fitted), "gate", rows, seed=pool.seed)
        fit_part(case, fitted, [*state.parameters(), *fitted.query.parameters(), *fitted.key.parameters()])
        ranked.append((held_out_loss(case, fitted), text, state, fitted))
    _, text, state, fitted = min(ranked, key=lambda each: each[0])
    model = AttentiveMixture(state, bodies, heads, STATE, firsts[-1], DIM, combine=pool.combine())
    model.query, model.key = fitted.query, fitted.key
    return model.to(pool.outputs.device).eval(), text


class _Row(nn.Module):
    """The row itself out of rows with features behind them."""

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.shape.numel()].unflatten(1, tuple(self.shape))


class _Columns(nn.Module):
    """One network's features out of rows with the features of all behind them; those of the others become 0."""

    def __init__(self, start: int, width: int, kept: tuple[int, int]):
        super().__init__()
        self.start, self.width, self.kept = start, width, kept

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.kept
        return nn.functional.pad(x[:, self.start + first : self.start + last], (first, self.width - last))


def _with_features(pool: Pool, bodies: list[Adapter]) -> tuple[Split, torch.Size]:
    """The pool's rows with all networks' features behind each, as vectors; and the shape of a row."""
    pieces = []
    with torch.no_grad():
        for batch in ordered_batches(pool.rows, ROWS_AT_ONCE):
            features = torch.stack([body(batch.x) for body in bodies]).sum(0)  # each has its own columns
            pieces.append(torch.cat([batch.x.flatten(1).to(features.dtype), features], 1))
    shape = pool.rows.images.shape[1:]
    return Split(torch.cat(pieces), pool.rows.labels, pool.rows.domains), shape


def _body(expert: Adapter, path: str, width: int, first: int) -> Adapter:
    """What gives a network's features in columns of its own, from `first`, of as many as all networks' features."""
    inputs = {"size": expert.size, "channels": expert.channels, "transform": expert.transform}
    layer: Any = expert.network.get_submodule(path)
    columns = range(first, first + layer.in_features)
    return Adapter(Features(expert.network, path), **inputs, classes=columns, total=width, fill=0.0, frozen=True).eval()


def _head(expert: Adapter, path: str, width: int, first: int) -> Adapter:
    """The network's last layer, a copy that reads the network's columns, with the adapter's map of classes."""
    layer: Any = expert.network.get_submodule(path)
    head = Linear(width, layer.out_features).to(layer.weight.device, layer.weight.dtype)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.weight[:, first : first + layer.in_features] = layer.weight
        nn.init.zeros_(head.linear.bias)
        if layer.bias is not None:
            head.linear.bias.copy_(layer.bias)
    names = ("classes", "total", "fill", "activation", "others", "kept_classes")
    return Adapter(head, **{name: getattr(expert, name) for name in names}, frozen=True).eval()


@torch.no_grad()
def _last_layer(expert: Any, x: Tensor) -> str | None:
    """The path of the dense layer that gives the outputs of an adapter's network; None where there is none."""
    if not isinstance(expert, Adapter) or expert.output is not None:
        return None
    x, seen = expert._convert_input(x), {}
    layers = {name: module for name, module in expert.network.named_modules() if name and isinstance(module, nn.Linear)}
    paths: dict[nn.Module, str] = {module: name for name, module in layers.items()}

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen[paths[module]] = (inputs[0], output)

    hooks = [module.register_forward_hook(note) for module in paths]
    try:
        outputs = expert.network(x)
    finally:
        for hook in hooks:
            hook.remove()
    for path, (inputs, output) in reversed(seen.items()):
        if inputs.ndim == 2 and output.shape == outputs.shape and torch.equal(output, outputs):
            return path if torch.equal(Features(expert.network, path)(x), inputs) else None
    return None
