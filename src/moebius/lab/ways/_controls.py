"""Models that are trained from the start, which a mixture of trained networks has to beat."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moebius.gates.uniform import Uniform
from moebius.lab.data.split import Dataset, Split
from moebius.lab.remedies._fitting import _silence
from moebius.lab.training.fit import fit
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Obstacle
from moebius.layers.mixture import Mixture
from moebius.networks.dense import Dense

# Rows that decide when a control has learned enough.
HELD_OUT = 0.15
EPOCHS = 60


def control_rows(pool: Pool) -> Split:
    """The rows that controls are trained on: those for them, or else those that ways are fitted to."""
    return pool.rows if pool.training is None else pool.training


def train_control(pool: Pool, network: nn.Module, rows: Split | None = None, task: Any = None) -> Mixture:
    """A network, trained on the task, as a mixture of one expert.

    By Adam with a rate of .003, which halves where the loss on held-out rows does not fall, until it has not fallen for
    8 epochs; the best epoch is kept.

    Arguments:
        pool: whose task it learns.
        network: is trained in place.
        rows: unless given, those of `control_rows`.
        task: in the place of the pool's, for other targets.
    """
    rows = control_rows(pool) if rows is None else rows
    order = torch.from_numpy(np.random.default_rng([pool.seed, 7]).permutation(len(rows))).to(rows.device)
    count = max(round(HELD_OUT * len(rows)), 1)
    held_out, fitted = rows.take(order[:count]), rows.take(order[count:])
    model = Mixture(Uniform(1), [network.to(rows.device)], combine=pool.combine())
    with _silence():
        fit(
            model,
            Dataset(fitted, held_out, held_out, (), ("rows",), "rows of a control"),
            "experts",
            task=pool.task if task is None else task,
            seed=pool.seed,
            device=rows.device.type,
            progress=False,
            epochs=EPOCHS,
            lr=0.003,
            watch={"measure": "loss", "patience": 8, "plateau": {"patience": 3}},
        )
    return model.eval()


def dense_network(pool: Pool, parameters: int) -> nn.Module | Obstacle:
    """A network with one hidden layer of about so many parameters, from rows to the task's outputs."""
    x = pool.rows.images
    if not (x.is_floating_point() or x.dtype == torch.uint8):
        return Obstacle("nothing tells how a network reads rows of whole numbers")
    features, outputs = math.prod(x.shape[1:]), pool.outputs[0, 0].numel()
    hidden = max(round((parameters - outputs) / (features + outputs + 1)), 1)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(pool.seed)
        return nn.Sequential(nn.Flatten(), Dense(features, (hidden,), outputs, "relu"))


def parameters_of(modules: Any) -> int:
    """How many numbers modules have that could be trained, each once."""
    counts: dict[int, int] = {}
    for module in modules:
        counts |= {id(parameter): parameter.numel() for parameter in module.parameters()}
    return sum(counts.values())


def distillation(pool: Pool, teacher: Tensor) -> tuple[Split, Callable[[Any, Any], Tensor]]:
    """Rows whose targets are a teacher's outputs, and the loss of a student on them."""
    rows = Split(pool.rows.images, teacher, pool.rows.domains, pool.rows.scale)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if pool.classifies:
            return -(target.softmax(-1) * output.log_softmax(-1)).sum(-1)
        return (output - target).square().flatten(1).mean(1)

    return rows, loss
