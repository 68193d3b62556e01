"""Which rows of a batch the rows of a routing are: the rows themselves, or their tokens."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moebius.core.recording import Log
from moebius.lab.training.mixture_parts import MixtureLayer
from moebius.layers.position_mixture import PositionMixture


def tokens_per_row(path: str, log: Log, rows: int, modules: Mapping[str, nn.Module]) -> int:
    """How many rows of the outermost mixture around the one at `path` are tokens of one of the batch's rows."""
    around = [log[gate][0] for gate in log if gate == path or _sends_rows(gate, path, modules)]
    outermost = [routing for routing in around if routing.rows is None]
    return max((len(routing.weights) // rows for routing in outermost), default=1) or 1


def _sends_rows(gate: str, path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the gate that records at a path is of a mixture around another path, which gets its rows."""
    if isinstance(modules[gate], PositionMixture):
        return False  # its experts get whole inputs
    layer = gate if isinstance(modules[gate], MixtureLayer) else gate.rpartition("gates.")[0].removesuffix(".")
    return layer == "" or f"{path}.".startswith(f"{layer}.")


def store_by_row(
    table: Float[Tensor, "S N E"],
    values: Float[Tensor, "T E"],
    numbers: Int[Tensor, " T"] | None,
    batch_rows: Int[Tensor, " B"],
    runs: int,
    tokens: int,
) -> None:
    """Write what a routing holds to the places of its rows; for several tokens of a row, their mean.

    Arguments:
        table: of all rows of a split, for each run.
        values: weights, or another field of the routing.
        numbers: `rows` of the routing.
        batch_rows: of the batch, as positions in the split.
        runs: S.
        tokens: of each row of the batch, from `tokens_per_row`.
    """
    values, count = values.to(table.dtype), len(batch_rows)
    if numbers is None:
        if len(values) == runs * count * tokens:
            by_row = values.unflatten(0, (runs, count, tokens))
            table[:, batch_rows] = by_row.squeeze(2) if tokens == 1 else by_row.mean(2)
        return
    assert runs == 1, "a cohort's mixtures send no rows to mixtures inside them"
    rows = numbers // tokens
    counts = torch.bincount(rows, minlength=count)
    if len(counts) > count:
        return  # tokens under a mask are numbered among all tokens, and their rows are not known
    sums = values.new_zeros(count, values.shape[1]).index_add(0, rows, values)
    reached = counts > 0
    table[0, batch_rows[reached]] = sums[reached] / counts[reached].unsqueeze(1)
