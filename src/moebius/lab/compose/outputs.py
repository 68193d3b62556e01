"""The outputs of all networks for all rows: computed once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import call_model
from moebius.lab.training.evaluation import ROWS_AT_ONCE
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification

# Numbers that all outputs together have at most, 2 GiB of them; of more rows some are drawn.
MOST_NUMBERS = 2**29
Listener = Callable[[str], None]


@dataclass(frozen=True)
class Outputs:
    """The outputs of every network for some rows.

    Arguments:
        rows: those that were computed: all, or as many as memory allows.
        values: of every network for them.
        knows: which classes each network knows.
    """

    rows: Split
    values: Float[Tensor, "T E ..."]
    knows: Bool[Tensor, "E _"]


def compute_outputs(
    networks: Mapping[str, Adapter], task: Task, rows: Split, seed: int = 0, tell: Listener | None = None
) -> Outputs:
    """Run every network on every row, once.

    Arguments:
        networks: name → network.
        task: what is learned.
        rows: the rows.
        seed: of the rows that are drawn where they are too many.
        tell: receives a line before each network.

    Raises:
        ArgumentError: outputs do not fit the task or each other, or are not numbers.
    """
    values: list[Tensor] = []
    for name, network in networks.items():
        if tell is not None:
            tell(f"outputs of {name}")
        begin = time.perf_counter()
        if not values:
            first = _run(name, network, rows.take(slice(0, 1)))
            rows = _drawn(rows, MOST_NUMBERS // max(first.numel() * len(networks), 1), seed)
        output = _run(name, network, rows)
        task.for_model(network).check(output[:1], rows.labels)
        _check(name, output, values, list(networks))
        values.append(output)
        if tell is not None:
            tell(f"outputs of {name}: {time.perf_counter() - begin:.1f} s")
    stacked = torch.stack(values, 1)
    return Outputs(rows, stacked, _known_classes(networks, task, stacked))


def _run(name: str, network: Adapter, rows: Split) -> Tensor:
    pieces = []
    try:
        with torch.inference_mode():
            for batch in ordered_batches(rows, ROWS_AT_ONCE):
                pieces.append(call_model(network, batch.x, batch.domains))
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise error.inside(name) from None
        rule = f"does not take these rows ({str(error).splitlines()[0]})"
        fix = "mb.experts.Adapter(network, size=…, channels=…, transform=…)"
        raise ArgumentError(name, rule, tuple(rows.images.shape), fix) from None
    if not all(isinstance(piece, Tensor) for piece in pieces):
        fix = "mb.experts.Adapter(network, output=…)"
        raise ArgumentError(name, "must give one tensor", type(pieces[0]).__name__, fix)
    output = torch.cat(pieces).clone()  # not an inference tensor: gates are fitted to it
    output = output.float() if output.is_floating_point() else output
    return output.unsqueeze(1) if output.ndim == 1 else output


def _check(name: str, output: Tensor, values: list[Tensor], names: list[str]) -> None:
    if values and output.shape != values[0].shape:
        rule = f"must give outputs of the shape {tuple(values[0].shape[1:])}, as {names[0]} does"
        fix = "mb.experts.Adapter(network, classes=[…], total=…)    # for a network that knows some classes"
        raise ArgumentError(name, rule, tuple(output.shape[1:]), fix)
    if bool(output.isnan().any()) or bool((output == torch.inf).any()):
        row = int((output.isnan() | (output == torch.inf)).flatten(1).any(1).nonzero()[0])
        rule = f"must give numbers, and row {row} has one that is none"
        raise ArgumentError(name, rule, "NaN or infinite", "a network that gives finite outputs, or fewer rows")


def _known_classes(networks: Mapping[str, Adapter], task: Task, values: Tensor) -> Tensor:
    """A network knows the classes that its adapter names, or else those whose outputs are above −∞."""
    width = values.shape[-1] if values.ndim > 2 else 1
    knows = torch.ones(len(networks), width, dtype=torch.bool)
    if not isinstance(task, Classification):
        return knows
    for number, network in enumerate(networks.values()):
        knows[number] = (values[:, number] > -torch.inf).any(0).cpu()
        part = network
        while isinstance(part, Adapter):
            if part.classes is not None:
                knows[number] &= torch.tensor([each in part.classes for each in range(width)])
            part = part.network
    return knows


def _drawn(rows: Split, most: int, seed: int) -> Split:
    if len(rows) <= most:
        return rows
    order = np.random.default_rng([seed, 6]).permutation(len(rows))[:most]
    return rows.take(torch.from_numpy(np.sort(order)))
