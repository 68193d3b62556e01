"""What processes have computed for their parts of a split, put together."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.nested import map_nested
from moebius.lab.training.processes import Processes


class ComputedRows(NamedTuple):
    """What an evaluation computes of an interval of rows, for S runs.

    Arguments:
        rows: T, how many rows there are; may be 0.
        columns: name → (S, T, …), on the CPU.
        gates: path of a gate → (S, T, E).
        outputs: the model's outputs, batch by batch, if they are kept.
        shape: of an output for a row.
        averaged: paths of the gates whose weights are means.
    """

    rows: int
    columns: dict[str, Tensor]
    gates: dict[str, Float[Tensor, "S T _"]]
    outputs: list[Any]
    shape: tuple[int, ...]
    averaged: set[str]

    def gathered(self, processes: Processes, device: torch.device) -> "ComputedRows":
        """The rows of all processes, in the order of the processes; gates and outputs go to `device`.

        Arguments:
            processes: all of them call this; at least one has rows.
        """
        facts = processes.gather((self.rows, self.shape, self.averaged))
        tensors = processes.gather_tensors((self.columns, self.gates, tuple(self.outputs)))
        parts = [
            ComputedRows(rows, columns, _to_cpu(gates), [*_to_cpu(outputs)], shape, averaged)
            for (rows, shape, averaged), (columns, gates, outputs) in zip(facts, tensors, strict=True)
            if rows
        ]
        widths = {path: table for part in reversed(parts) for path, table in part.gates.items()}

        def table_of(part: ComputedRows, path: str) -> Tensor:
            """A gate that no row of the part has reached is not in it."""
            runs, _, experts = widths[path].shape
            empty = widths[path].new_full((runs, part.rows, experts), torch.nan)
            table = part.gates.get(path)
            return empty if table is None else table

        return ComputedRows(
            sum(part.rows for part in parts),
            {name: torch.cat([part.columns[name] for part in parts], 1) for name in parts[0].columns},
            {path: torch.cat([table_of(part, path) for part in parts], 1).to(device) for path in widths},
            [map_nested(output, lambda values: values.to(device)) for part in parts for output in part.outputs],
            parts[0].shape,
            set().union(*(part.averaged for part in parts)),
        )


def _to_cpu(values: Any) -> Any:
    return map_nested(values, Tensor.cpu)
