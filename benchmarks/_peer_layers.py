"""Sparse layers of other libraries' kind, in our code, for `peers.py`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Width of a row, hidden width of a plain expert, number of experts, experts per row, and number of rows."""

    dim: int
    hidden: int
    experts: int
    k: int
    rows: int

    @property
    def gated_hidden(self) -> int:
        """The hidden width with which three matrices have as many weights as two, rounded up to a multiple of 8."""
        return -(-self.hidden * 2 // 24) * 8


class OutputOnly(nn.Module):
    """A layer that returns its output and losses, without the losses."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Dispatched(nn.Module):
    """The layer of Shazeer et al. 2017: dispatch rows to a list of experts, run each expert, combine their outputs."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.k = shape.k
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.dim, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.dim))
            for _ in range(shape.experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        scores = self.gate(rows)
        best = scores.topk(self.k, -1)
        gates = torch.zeros_like(scores).scatter(1, best.indices, best.values.softmax(-1))
        expert_A, row_A = torch.nonzero(gates.t(), as_tuple=True)
        expert_rows = rows[row_A].split((gates > 0).sum(0).tolist())
        outputs = torch.cat([expert(x) for expert, x in zip(self.experts, expert_rows, strict=True)])
        weighted = outputs * gates[row_A, expert_A].unsqueeze(1)
        return torch.zeros_like(rows).index_add(0, row_A, weighted).view_as(x)


class Grouped(nn.Module):
    """A layer of grouped products: sort, copy the rows, a `grouped_mm` per layer of all experts, weighted scatter."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.k, self.experts = shape.k, shape.experts
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.inner = nn.Parameter(shape.dim**-0.5 * torch.randn(shape.experts, shape.dim, shape.hidden))
        self.outer = nn.Parameter(shape.hidden**-0.5 * torch.randn(shape.experts, shape.hidden, shape.dim))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        best = self.gate(rows).topk(self.k, -1)
        expert_A, order_A = best.indices.flatten().sort(stable=True)
        ends = torch.bincount(expert_A, minlength=self.experts).cumsum(0).int()
        row_A = order_A // self.k
        hidden = F.gelu(F.grouped_mm(rows[row_A], self.inner, offs=ends))
        outputs = F.grouped_mm(hidden, self.outer, offs=ends) * best.values.softmax(-1).flatten()[order_A, None]
        return torch.zeros_like(rows).index_add(0, row_A, outputs).view_as(x)
